"""Our own processes, and what must be done before they start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Final

from infra.embedded import postgres, probes
from infra.embedded.ascent import Errand
from infra.embedded.credentials import Credentials
from infra.embedded.environment import LOOPBACK, reachable
from infra.embedded.failures import PartFailedError, PartMissingError
from infra.embedded.home import Home
from infra.embedded.orphans import dying_with_parent
from infra.embedded.parts import Layer, Part
from infra.embedded.ports import Ports
from infra.embedded.probes import Probe
from infra.embedded.supervision import last_lines
from sluice.broker import INGEST

ADMIN_EMAIL: Final = "admin@sluice.local"
ADMIN_TENANT: Final = "Default"
_STORES: Final = ("postgres", "redis", "rabbitmq", "s3", "qdrant")
# Models and workers can fill every core for minutes. What is answered in milliseconds goes first, and what a person
# waits for before what nobody does.
_NICENESS: Final = {"emb": 5, "llm": 5, "worker": 10}


def service_parts(home: Home, ports: Ports, environment: Mapping[str, str]) -> list[Part]:
    """EMB, LLM, API, worker and dispatcher, at the addresses that the environment gives them."""
    return [
        _serving(home, Layer.MODEL, "emb", "services.emb.main", environment),
        _serving(home, Layer.MODEL, "llm", "services.llm.main", environment),
        _serving(home, Layer.SERVICE, "api", "services.api.main", environment),
        _worker(home, ports.worker_metrics, environment),
        _running(home, "dispatcher", "services.workers.dispatcher", ports.dispatcher_metrics),
    ]


def _serving(home: Home, layer: Layer, name: str, module: str, environment: Mapping[str, str]) -> Part:
    host, port = (environment[f"SLUICE_{name.upper()}_{what}"] for what in ("HOST", "PORT"))
    url = f"http://{reachable(host)}:{port}"
    part = _module(home, name, module, probes.http(f"{url}/readyz"))
    # Models need no store: they load while the stores start.
    depends_on = part.depends_on if layer == Layer.SERVICE else ()
    return replace(part, layer=layer, ports=(int(port),), address=url, depends_on=depends_on)


def _running(home: Home, name: str, module: str, port: int) -> Part:
    address = f"http://{LOOPBACK}:{port}/metrics"
    part = _module(home, name, module, probes.http(address))
    return replace(part, ports=(port,), address=address, environment={"SLUICE_METRICS_PORT": str(port)})


def _worker(home: Home, port: int, environment: Mapping[str, str]) -> Part:
    part = _running(home, "worker", "services.workers.main", port)
    counters = home.run / "worker-metrics"

    def prepare() -> None:
        part.prepare()
        # What the children of an earlier run counted must not be added to this one's.
        shutil.rmtree(counters, ignore_errors=True)
        counters.mkdir()

    return replace(
        part,
        prepare=prepare,
        probe=probes.consumed(environment["SLUICE_BROKER_URL"], INGEST),
        environment={**part.environment, "PROMETHEUS_MULTIPROC_DIR": str(counters)},
    )


def _module(home: Home, name: str, module: str, probe: Probe) -> Part:
    def prepare() -> None:
        if find_spec(module) is None:
            raise PartMissingError(f"{name} cannot start: {module} is not in {home.root}. Is the checkout complete?")

    return Part(
        name=name,
        layer=Layer.SERVICE,
        command=_giving_way(dying_with_parent([sys.executable, "-m", module]), _NICENESS.get(name, 0)),
        folder=home.root,
        probe=probe,
        ports=(),
        depends_on=("schema", *_STORES),
        prepare=prepare,
        stop_seconds=30,
    )


def _giving_way(command: list[str], niceness: int) -> list[str]:
    return ["nice", "-n", str(niceness), *command] if niceness else command


def errands(
    home: Home, ports: Ports, credentials: Credentials, environment: Mapping[str, str], *, schema: bool
) -> list[Errand]:
    """Database and roles; with `schema`, also the tables and the first administrator."""
    database = Errand("database", ("postgres",), partial(postgres.ensure_database, ports.postgres, credentials))
    if not schema:
        return [database]
    return [database, Errand("schema", (database.name,), partial(_bring_up_to_date, home, credentials, environment))]


def _bring_up_to_date(home: Home, credentials: Credentials, environment: Mapping[str, str]) -> None:
    _run(home, environment, "alembic", "upgrade", "head")
    _run(
        home, environment, "sluice.identity.first_admin",
        "--tenant", ADMIN_TENANT, "--email", ADMIN_EMAIL, "--password-file", str(credentials.admin_password_file()),
    )  # fmt: skip


def _run(home: Home, environment: Mapping[str, str], module: str, *arguments: str) -> None:
    log = home.log("schema")
    with log.open("ab") as output:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=home.root,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise PartFailedError(f"{module} ended with exit code {done.returncode}. The end of {log}:\n{last_lines(log)}")
