"""The tables of docs/environments.md: `python -m infra.swarm.environments` writes them anew, from the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from infra.swarm.compose_files import default_of, load, variables
from sluice import settings
from sluice.environment import Settings

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "environments.md"
# What follows this line is written by this module.
MARK: Final = "<!-- Written by `python -m infra.swarm.environments` from here to the end. -->\n"

# The groups of settings that each of our processes reads when it starts.
READS: Final[Mapping[str, tuple[type[Settings], ...]]] = {
    "migrate": (
        settings.DatabaseSettings, settings.MigrationSettings, settings.AdministratorSettings,
        settings.ObjectStoreSettings, settings.TelemetrySettings,
    ),
    "api": (
        settings.DatabaseSettings, settings.RedisSettings, settings.ObjectStoreSettings, settings.VectorIndexSettings,
        settings.EmbeddingClientSettings, settings.CompletionClientSettings, settings.JobSettings,
        settings.IngestSettings, settings.RetrievalSettings, settings.AuthSettings, settings.ApiSettings,
        settings.ModelStoreSettings, settings.TelemetrySettings,
    ),
    "worker": (
        settings.DatabaseSettings, settings.BrokerSettings, settings.ObjectStoreSettings, settings.VectorIndexSettings,
        settings.EmbeddingClientSettings, settings.JobSettings, settings.IngestSettings, settings.TelemetrySettings,
    ),
    "dispatcher": (
        settings.DatabaseSettings, settings.BrokerSettings, settings.JobSettings, settings.TelemetrySettings,
    ),
    "emb": (settings.EmbServiceSettings, settings.ModelStoreSettings, settings.TelemetrySettings),
    "llm": (settings.LlmServiceSettings, settings.ModelStoreSettings, settings.TelemetrySettings),
}  # fmt: skip
# Optional in the group, because not every process that reads the group needs it.
NEEDS_BESIDES: Final[Mapping[str, frozenset[str]]] = {
    "SLUICE_DATABASE_SYSTEM_URL": frozenset({"migrate", "api", "dispatcher"}),
    "SLUICE_DATABASE_ADMIN_URL": frozenset({"migrate"}),
    "SLUICE_S3_PUBLIC_ENDPOINT": frozenset({"api"}),
    "SLUICE_METRICS_PORT": frozenset({"worker", "dispatcher"}),
}
# What no setting and no line of the entrypoint explains.
MEANINGS: Final[Mapping[str, str]] = {
    "SLUICE_BASE_IMAGE": "Build: Python image under api, workers, emb and llm",
    "SLUICE_HTTP_ADDRESS": "Address of this machine to publish on; empty: all. `127.0.0.1` behind a proxy of your own",
    "SLUICE_HTTPS_PORT": "Port for HTTPS on each edge node, once `SLUICE_NGINX_TLS=files`",
    "SLUICE_HTTP_PORT": "Port for HTTP on each edge node",
    "SLUICE_LOG_LEVEL": "Least severity that our services log: DEBUG, INFO, WARNING or ERROR",
    "SLUICE_NGINX_BASE_IMAGE": "Build: nginx image under the edge",
    "SLUICE_PIP_EXTRA_INDEX_URL": "Build: another package index, such as one with CPU builds of PyTorch",
    "SLUICE_PIP_INDEX_URL": "Build: package index; empty: pip's own default",
    "SLUICE_POSTGRES_IMAGE": "Image of PostgreSQL 18",
    "SLUICE_POSTGRES_SHARED_BUFFERS": "PostgreSQL's own cache: about a quarter of the memory that it may use",
    "SLUICE_PROMETHEUS_IMAGE": "Image of Prometheus",
    "SLUICE_PROMETHEUS_PORT": "Port of this machine, and of it alone, for Prometheus' pages",
    "SLUICE_PUBLIC_URL": "URL that clients use; links to files lead there. With TLS: https, and the certificate's name",
    "SLUICE_PULL_POLICY": "`never`: our images are built here. `missing`: they are pulled from `SLUICE_REGISTRY`",
    "SLUICE_QDRANT_IMAGE": "Image of Qdrant (unprivileged)",
    "SLUICE_RABBITMQ_IMAGE": "Image of RabbitMQ 4",
    "SLUICE_REDIS_IMAGE": "Image of Redis",
    "SLUICE_REGISTRY": "Where our images are: registry and folder, such as `registry.example.com/sluice`",
    "SLUICE_S3_IMAGE": "Image of VersityGW",
    "SLUICE_SECRETS": "Folder of the secrets, one file each; `infra/swarm/deploy init` makes what is missing",
    "SLUICE_SMOKE_CA": "File with the authority (PEM) that the smoke suite shall trust besides the public ones",
    "SLUICE_SMOKE_URL": "URL for the smoke suite after a deploy; default: `SLUICE_PUBLIC_URL`",
    "SLUICE_STACK": "Name of the stack, with which the names of its networks, volumes and secrets begin",
    "SLUICE_TLS_DIR": "Folder with `certificate.pem` (the whole chain) and `key.pem`, readable by user 10001",
    "SLUICE_VERSION": "Tag of our images",
    "SLUICE_WORKERS": "Image of worker and dispatcher: `workers`, or `workers-ocr` with Tesseract",
    "SLUICE_WORKER_CONCURRENCY": "Steps that one worker runs at once",
}  # fmt: skip


def main() -> None:
    """Write the tables into the document."""
    DOCUMENT.write_text(document(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


def document(text: str) -> str:
    """The document with its tables as they should be now."""
    prose, mark, _ = text.partition(MARK)
    if not mark:
        raise SystemExit(f"{DOCUMENT} lacks the line {MARK.strip()}")
    return prose + mark + "\n".join(_tables()) + "\n"


def variable_of(group: type[Settings], field: str) -> str:
    """The variable that sets this field."""
    return f"{group.model_config['env_prefix']}{field}".upper()


def edge_variables() -> dict[str, tuple[str, str]]:
    """Default and meaning of each variable that nginx's entrypoint reads."""
    script = (ROOT / "infra/nginx/entrypoint.sh").read_text(encoding="utf-8")
    found = re.findall(r'^# (.+)\n: "\$\{(\w+):=(.*)\}"$', script, flags=re.MULTILINE)
    return {name: (default, meaning) for meaning, name, default in found}


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a service by the setting they are for: `NAME_FILE` stands under `NAME`."""
    given = service.get("environment", {})
    return {name.removesuffix("_FILE"): value for name, value in given.items()}


def image_environment(target: str) -> dict[str, str]:
    """The `SLUICE_*` variables that the image of this target has."""
    text = (ROOT / "infra/images/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    for stage in stages:
        head, _, body = stage.partition("\n")
        if head.split()[-1] in {"runtime", target}:
            lines = re.findall(r"^ENV (.+)$", body, flags=re.MULTILINE)
            found |= dict(re.findall(r"(SLUICE_\w+)=(\S*)", " ".join(lines)))
    return found


def _tables() -> Iterator[str]:
    stack, compose = load(ROOT / "stack.yml"), load(ROOT / "docker-compose.yml")
    yield from ("", "## Variables of a deployment", "")
    yield "Set in the shell, in `sluice.env` (Swarm) or in `.env` (Compose). An empty cell: no such variable there."
    yield from ("", *_table(("variable", "Swarm", "Compose", "meaning"), _deployment_rows(stack, compose)))
    yield from ("", "## Settings by service", "")
    yield (
        "R: the service does not start without it. o: it has a default, and the deployment gives it another value. "
        "·: it is read, and has its default. What each means: [operations.md](operations.md#settings)."
    )
    yield from ("", *_table(("variable", "default", "given", *READS), _setting_rows(stack["services"])))
    yield from ("", "## Settings of nginx", "")
    yield from _table(("variable", "default", "given", "meaning"), _edge_rows(stack["services"]["nginx"]))
    yield from ("", "## Variables that are not ours", "")
    yield from _table(("service", "variable", "value"), _foreign_rows(stack["services"]))


def _deployment_rows(stack: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    swarm, tls = dict(_defaults(stack)), dict(_defaults(load(ROOT / "infra/swarm/tls.yml")))
    one_machine = dict(_defaults(compose))
    # Read by infra/swarm/deploy itself.
    columns = (tls | swarm | {"SLUICE_SMOKE_CA": "—", "SLUICE_SMOKE_URL": "—"}, one_machine)
    for name in sorted({*columns[0], *columns[1]}):
        if not name.startswith("SHA_"):
            yield (f"`{name}`", *(column.get(name, "") for column in columns), meaning_of(name))


def _defaults(file: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for variable in variables(file):
        default = default_of(variable)
        yield variable.name, "required" if variable.required else f"`{default}`" if default else "—"


def meaning_of(name: str) -> str:
    """What a variable of a deployment is for."""
    described = {variable_of(group, field): info.description for group, field, info in _fields()}
    edge = {variable: meaning for variable, (_, meaning) in edge_variables().items()}
    meaning = MEANINGS.get(name) or edge.get(name) or described.get(name)
    if not meaning:
        raise SystemExit(f"{name} stands in a stack file, and nothing says what it means: add it to MEANINGS.")
    return meaning


def _fields() -> Iterator[tuple[type[Settings], str, FieldInfo]]:
    for group in dict.fromkeys(group for groups in READS.values() for group in groups):
        for field, info in group.model_fields.items():
            yield group, field, info


def _setting_rows(services: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for group, field, info in _fields():
        name = variable_of(group, field)
        readers = [service for service, groups in READS.items() if group in groups]
        given = {reader: _given(name, reader, services[reader]) for reader in readers}
        default = "" if info.is_required() or info.default is None else f"`{info.default}`"
        marks = (
            "" if service not in readers
            else "R" if info.is_required() or service in NEEDS_BESIDES.get(name, ())
            else "o" if given[service] else "·"
            for service in READS
        )  # fmt: skip
        yield (f"`{name}`", default, ", ".join(dict.fromkeys(filter(None, given.values()))), *marks)


def _given(name: str, service: str, definition: Mapping[str, Any]) -> str:
    environment = environment_of(definition)
    if name in environment:
        return _origin(environment[name])
    target = {"migrate": "api", "worker": "workers", "dispatcher": "workers"}.get(service, service)
    value = image_environment(target).get(name, "")
    if value.startswith("$"):
        return f"build argument `{value[1:]}`"
    return f"image: `{value}`" if value else ""


def _origin(value: str) -> str:
    if value.startswith("/run/secrets/"):
        return f"secret `{value.removeprefix('/run/secrets/')}`"
    names = [variable.name for variable in variables(value)]
    return f"variable `{names[0]}`" if names else f"`{value}`"


def _edge_rows(nginx: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    given = environment_of(nginx)
    for name, (default, meaning) in edge_variables().items():
        yield f"`{name}`", f"`{default}`" if default else "", _origin(given[name]) if name in given else "", meaning


def _foreign_rows(services: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for service, definition in services.items():
        for name, value in definition.get("environment", {}).items():
            if not name.startswith("SLUICE_"):
                yield service, f"`{name}`", _origin(value)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |"


if __name__ == "__main__":
    main()
