"""The real nginx with our configuration, and small servers to stand behind it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).parents[2]
ENTRYPOINT: Final = ROOT / "infra" / "nginx" / "entrypoint.sh"
PROBLEM: Final = "application/problem+json"
MEMBERS: Final = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
_PATIENCE_SECONDS: Final = 30


@dataclass(frozen=True)
class Edge:
    """A running nginx."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def log(self) -> list[dict[str, Any]]:
        """The lines of the access log that are complete."""
        whole, _, _ = (self.folder / "access.log").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def line(self, request_id: str) -> dict[str, Any]:
        """The line of this request, which comes a moment after its answer."""
        until(lambda: any(line["request_id"] == request_id for line in self.log()))
        (line,) = [line for line in self.log() if line["request_id"] == request_id]
        return line

    def errors(self) -> str:
        """What nginx said besides."""
        return (self.folder / "errors.log").read_text()

    @property
    def modes(self) -> Path:
        """Where its flags are."""
        return self.folder / "mode"


def settings(folder: Path, **values: object) -> dict[str, str]:
    """The environment of an entrypoint that keeps to this folder; `api=` means `SLUICE_NGINX_API=`."""
    own = {
        "ADDRESS": "127.0.0.1",
        "ACCESS_LOG": folder / "access.log",
        "MODE_DIR": folder / "mode",
        "RUN_DIR": folder / "run",
        "WORKERS": 1,
    }
    named = {name.upper(): value for name, value in values.items()}
    whole = {name: value for name, value in named.items() if name.startswith("SLUICE_")}
    return {
        "PATH": os.environ["PATH"],
        **{f"SLUICE_NGINX_{name}": str(value) for name, value in (own | named).items() if name not in whole},
        **{name: str(value) for name, value in whole.items()},
    }


@contextmanager
def running_edge(folder: Path, **values: object) -> Iterator[Edge]:
    """An edge with these settings, from its readiness to its end."""
    (folder / "mode").mkdir(parents=True)
    port = free_port()
    environment = settings(folder, http_port=port, **values)
    with (folder / "errors.log").open("wb") as errors:
        process = subprocess.Popen([ENTRYPOINT], env=environment, stdout=errors, stderr=errors)
    edge = Edge(f"http://127.0.0.1:{port}", folder, process)
    with _ending(process, signal.SIGTERM):
        until(lambda: process.poll() is not None or answers(f"{edge.url}/nginx-health"))
        assert process.poll() is None, edge.errors()
        yield edge


@contextmanager
def running_app(name: str = "tests.integration.echo_app:app", host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """An ASGI application in a process of its own, as host:port; asked to end like a replica that is replaced."""
    port = port or free_port(host)
    command = [sys.executable, "-m", "uvicorn", name, "--host", host, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=ROOT)
    with _ending(process, signal.SIGTERM):
        until(lambda: process.poll() is not None or answers(f"http://{host}:{port}/healthz"))
        assert process.poll() is None
        yield f"{host}:{port}"


@contextmanager
def _ending(process: subprocess.Popen[bytes], by: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(by)
        try:
            process.wait(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def until(condition: Callable[[], object], seconds: float = _PATIENCE_SECONDS) -> None:
    """Wait for it; fail when it does not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer, which must be one in every respect."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    body: dict[str, Any] = answer.json()
    assert body.keys() >= MEMBERS
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"] == f"/docs/problems#{body['code']}"
    assert str(body.get("retry_after", "")) == answer.headers.get("retry-after", "")
    return body
