"""What a deployment has to survive: each experiment returns figures, each with its limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from infra.swarm.rehearsal.load import Seen, load
from infra.swarm.rehearsal.stage import STACK, VERSION, Stage, expect, free_port

BROKEN: Final = "broken"
_DOCUMENTS: Final = 12
_PARAGRAPHS: Final = 60
# A killed worker's step waits for its lease (60 s) and the sweep, in a queue behind others.
_RECOVERY_SECONDS: Final = 300


@dataclass(frozen=True)
class Figure:
    """Something measured, and whether it is within its limit."""

    name: str
    value: str
    limit: str
    passed: bool


def no_way_out(stage: Stage) -> list[Figure]:
    """Only nginx has a route to the outside; what is inside could not call anybody if it wanted to."""
    figures = []
    for service in sorted(set(stage.services()) - {"nginx", "migrate"}):
        table = stage.docker.call("exec", stage.containers(service)[0], "cat", "/proc/net/route")
        default = any(line.split()[1] == "00000000" for line in table.splitlines()[1:])
        figures.append(Figure(f"{service}: routes to the outside", str(int(default)), "0", not default))
    return figures


def rolling_update(stage: Stage) -> list[Figure]:
    """Every task of the API is replaced while clients work."""
    before = set(stage.containers("api"))
    with load(stage.url, stage.sign_in()) as seen:
        time.sleep(3)
        expect(stage.update(SLUICE_LOG_LEVEL="WARNING"), 0)
        time.sleep(3)
    replaced = before.isdisjoint(stage.containers("api"))
    return [
        Figure("rolling update: tasks of the API replaced", "all" if replaced else "not all", "all", replaced),
        *_unharmed("rolling update", seen),
    ]


def worker_killed(stage: Stage) -> list[Figure]:
    """A worker dies by kill -9 in the middle of its work; Swarm starts another, and no document is lost."""
    with stage.client() as client:
        source = client.post("/api/sources", json={"name": f"killed-{time.time_ns()}"}).raise_for_status().json()["id"]
        jobs = []
        for number in range(_DOCUMENTS):
            text = "\n\n".join(_paragraph(number, each) for each in range(_PARAGRAPHS))
            answer = client.post(
                "/api/documents",
                data={"source_id": source},
                files={"file": (f"document-{number}.txt", text.encode(), "text/plain")},
            )
            jobs.append(answer.raise_for_status().json()["job_id"])
        _until(lambda: any(client.get(f"/api/jobs/{job}").json()["state"] == "running" for job in jobs), 60)
        # All of them, so that whoever holds a step dies with it.
        killed = set(stage.containers("worker"))
        stage.docker.call("kill", "--signal", "KILL", *killed)
        ended = stage.wait_ready(client, jobs, _RECOVERY_SECONDS)
    lost = sum(job["state"] != "ready" for job in ended.values())
    _until(lambda: stage.services()["worker"].converged, 60)
    again = killed.isdisjoint(stage.containers("worker")) and stage.services()["worker"].converged
    interrupted = int(stage.sql("SELECT count(*) FROM job_steps WHERE attempt > 1", database="sluice")[0])
    return [
        Figure("worker killed: steps interrupted", str(interrupted), "1 or more", interrupted > 0),
        Figure(f"worker killed: documents lost of {_DOCUMENTS}", str(lost), "0", lost == 0),
        Figure("worker killed: rescheduled", "yes" if again else "no", "yes", again),
    ]


def failed_update(stage: Stage) -> list[Figure]:
    """A version whose API does not start is taken back by itself, and nobody notices."""
    with load(stage.url, stage.sign_in()) as seen:
        printed = expect(stage.update(SLUICE_VERSION=BROKEN), 1)
    images = {
        stage.docker.inspect("service", [f"{STACK}_{name}"])[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        for name in ("api", "worker", "emb", "llm", "nginx")
    }
    back = all(image.endswith(f":{VERSION}") for image in images) and "previous definition" in printed
    return [
        Figure("failed update: taken back", "yes" if back else f"no: {sorted(images)}", "yes", back),
        *_unharmed("failed update", seen, ignoring_nginx=True),
    ]


def failed_smoke(stage: Stage) -> list[Figure]:
    """All is healthy and the smoke suite fails all the same: what was changed is taken back."""

    def burst() -> str:
        spec = stage.docker.inspect("service", [f"{STACK}_nginx"])[0]["Spec"]["TaskTemplate"]["ContainerSpec"]
        return next(str(each) for each in spec["Env"] if each.startswith("SLUICE_NGINX_REQUESTS_BURST="))

    before = burst()
    # Nobody listens there.
    printed = expect(stage.update(SLUICE_NGINX_REQUESTS_BURST="999", SLUICE_SMOKE_URL="http://127.0.0.1:9"), 1)
    back = burst() == before and "The smoke suite failed" in printed
    return [Figure("failed smoke suite: taken back", "yes" if back else f"no: {burst()}", "yes", back)]


def secret_rotation(stage: Stage) -> list[Figure]:
    """The API's and workers' database login is replaced while clients work."""
    before = stage.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'sluice_app%'")
    stage.docker.call(
        "run", "--rm", "--network", "none", "--user", "0", "--volume", f"{stage.secrets}:/secrets",
        f"sluice/api:{VERSION}", "sluice", "secrets", "rotate", "/secrets", "database_url",
    )  # fmt: skip
    with load(stage.url, stage.sign_in()) as seen:
        expect(stage.update(), 0)
    after = stage.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'sluice_app%'")
    ending = stage.sql(
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'sluice_app%' AND rolvaliduntil < now() + interval '2 hours'"
    )
    new_only = bool(after) and set(after).isdisjoint(before)
    return [
        Figure("secret rotation: connections with the old login", "0" if new_only else str(after), "0", new_only),
        Figure("secret rotation: old login runs out", ",".join(ending) or "no", "yes", set(before) <= set(ending)),
        *_unharmed("secret rotation", seen),
    ]


def tls(stage: Stage) -> list[Figure]:
    """Nginx gets a certificate; the smoke suite of that deploy goes over HTTPS."""
    stage.make_certificate()
    url = f"https://127.0.0.1:{free_port()}"
    done = stage.update(
        SLUICE_NGINX_TLS="files",
        SLUICE_PUBLIC_URL=url,
        SLUICE_HTTPS_PORT=url.rpartition(":")[2],
        SLUICE_SMOKE_CA=str(stage.secrets / "tls_certificate"),
    )
    passed = f"checks passed: {url}" in expect(done, 0)
    return [Figure("TLS: smoke suite over HTTPS", "passed" if passed else "not run", "passed", passed)]


def modes(stage: Stage) -> list[Figure]:
    """Nginx lets through what the mode allows, without a restart."""
    with stage.client() as client:
        seen = {}
        for mode in ("readonly", "maintenance", "normal"):
            expect(stage.deploy("mode", mode), 0)
            seen[mode] = (
                client.get("/api/sources").status_code,
                client.post("/api/sources", json={"name": f"mode-{mode}-{time.time_ns()}"}).status_code,
            )
    closed = HTTPStatus.SERVICE_UNAVAILABLE
    wanted = {
        "readonly": (HTTPStatus.OK, closed),
        "maintenance": (closed, closed),
        "normal": (HTTPStatus.OK, HTTPStatus.CREATED),
    }
    return [
        Figure(
            f"mode {mode}: read, write",
            f"{seen[mode][0]}, {seen[mode][1]}",
            f"{int(a)}, {int(b)}",
            seen[mode] == (a, b),
        )
        for mode, (a, b) in wanted.items()
    ]


def _unharmed(experiment: str, seen: Seen, *, ignoring_nginx: bool = False) -> list[Figure]:
    failed = [each for each in seen.failed if not (ignoring_nginx and _is_nginx_restart(each))]
    cut = [each for each in seen.cut if not (ignoring_nginx and _is_nginx_restart(each))]
    if ignoring_nginx:
        experiment += " (but for nginx's own restart)"
    return [
        Figure(
            f"{experiment}: failed requests of {seen.requests}", _some(failed), "0", not failed and seen.requests > 0
        ),
        Figure(f"{experiment}: cut streams of {seen.streams}", _some(cut), "0", not cut and seen.streams > 0),
    ]


def _is_nginx_restart(failure: str) -> bool:
    # A port of the host is held by one task: where nginx itself is replaced, its clients connect again.
    return any(name in failure for name in ("ConnectError", "ReadError", "RemoteProtocolError"))


def _some(failures: list[str]) -> str:
    return f"{len(failures)} ({'; '.join(sorted(set(failures))[:3])})" if failures else "0"


def _paragraph(document: int, number: int) -> str:
    return (
        f"Lock {document}.{number} of the canal lifts a barge by {number + 2} metres. Its keeper opens the sluice when "
        f"the water of basin {document * 100 + number} is level, and writes the hour into the book of the lock."
    )


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
