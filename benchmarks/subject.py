"""The platform that is measured: an embedded one of its own, and tenants that nobody used before."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
from httpx_sse import connect_sse
from pydantic import SecretStr

from infra.embedded.platform import Platform
from sluice.db.unscoped import create_unscoped_sessions
from sluice.identity.first_admin import ensure_administrator
from sluice.settings import DatabaseSettings

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"


@contextmanager
def running_platform() -> Iterator[Platform]:
    """A fresh platform under `.sluice-bench`, taken down afterwards."""
    home = ROOT / ".sluice-bench"
    # What an earlier run left in the queues would be measured too.
    Platform(home, ROOT).down()
    shutil.rmtree(home)
    platform = Platform(home, ROOT, report=print)
    platform.up()
    try:
        yield platform
    finally:
        platform.down()


class Tenant:
    """A new tenant with one source: nothing that it uploads has been embedded before."""

    def __init__(self, platform: Platform) -> None:
        self.variables = platform.environment()
        name = f"bench-{secrets.token_hex(6)}"
        password = secrets.token_hex(16)
        sessions = create_unscoped_sessions(
            DatabaseSettings(
                url=SecretStr(self.variables["SLUICE_DATABASE_URL"]),
                system_url=SecretStr(self.variables["SLUICE_DATABASE_SYSTEM_URL"]),
            )
        )
        ensure_administrator(sessions, tenant=name, email=f"{name}@example.com", password=password)
        host, port = self.variables["SLUICE_API_HOST"], self.variables["SLUICE_API_PORT"]
        self.http = httpx.Client(base_url=f"http://{host}:{port}", timeout=300)
        granted = self._json("POST", "/api/auth/login", json={"email": f"{name}@example.com", "password": password})
        self.http.headers["Authorization"] = f"Bearer {granted['access_token']}"
        self.id = granted["tenant_id"]
        self.source_id = self._json("POST", "/api/sources", json={"name": "documents"})["id"]

    def ingest(self, files: Sequence[Path]) -> float:
        """Upload the files and wait until all are ready; seconds."""
        started = time.perf_counter()
        jobs = [self.upload(file) for file in files]
        for job in jobs:
            self.wait(job)
        return time.perf_counter() - started

    def ask(self, question: str) -> Iterator[tuple[str, float]]:
        """The names of the events of an answer, and the milliseconds from asking to each."""
        started = time.perf_counter()
        with connect_sse(self.http, "POST", "/api/chat", json={"question": question}) as source:
            for event in source.iter_sse():
                yield event.event, (time.perf_counter() - started) * 1000

    def search(self, question: str) -> float:
        """Milliseconds of one search."""
        started = time.perf_counter()
        self._json("POST", "/api/search", json={"question": question})
        return (time.perf_counter() - started) * 1000

    def upload(self, file: Path) -> str:
        """Upload a file; the job that reads it."""
        with file.open("rb") as content:
            return self.upload_content(file.name, content)

    def upload_content(self, name: str, content: IO[bytes]) -> str:
        """Upload what the caller has under this name; the job that reads it."""
        fields = {"source_id": self.source_id}
        return str(self._json("POST", "/api/documents", data=fields, files={"file": (name, content)})["job_id"])

    def seconds_until_found(self, name: str, content: IO[bytes]) -> float:
        """Seconds from uploading until it is found."""
        started = time.perf_counter()
        self.wait(self.upload_content(name, content))
        return time.perf_counter() - started

    def waiting(self) -> int:
        """How many of the newest 100 jobs wait."""
        return len(self._json("GET", "/api/jobs", params={"state": "queued", "limit": 100})["data"])

    def wait_for_step(self, job_id: str, step: str) -> None:
        """Return when the job has come to this step."""
        with connect_sse(self.http, "GET", f"/api/jobs/{job_id}/events") as source:
            for event in source.iter_sse():
                if event.data and event.json()["step"] == step:
                    return
        raise RuntimeError(f"Job {job_id} ended before it came to {step}.")

    def cancel(self, job_id: str) -> None:
        """Stop the job."""
        self._json("POST", f"/api/admin/jobs/{job_id}:cancel")

    def wait(self, job_id: str) -> None:
        """Return when the job is ready; `RuntimeError` when it ends otherwise."""
        with connect_sse(self.http, "GET", f"/api/jobs/{job_id}/events") as source:
            last = [event.json() for event in source.iter_sse() if event.data][-1]
        if last["state"] != "ready":
            raise RuntimeError(f"Job {job_id} is {last['state']}: {last['error']}")

    def _json(self, method: str, path: str, **content: Any) -> Any:
        return self.http.request(method, path, **content).raise_for_status().json()
