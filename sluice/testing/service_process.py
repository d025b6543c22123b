"""A service as a real process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

import httpx

_READY_SECONDS = 120.0
_EXIT_SECONDS = 30.0
_PROBE_SECONDS = 0.1


@dataclass(frozen=True)
class ServiceProcess:
    """A service that is ready."""

    url: str
    process: subprocess.Popen[bytes]

    def terminate(self) -> None:
        """Ask it to stop, as an orchestrator does."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """How it ended; waits for that."""
        return self.process.wait(timeout=_EXIT_SECONDS)


@contextmanager
def running_service(
    part: str, *, variables: Mapping[str, str] | None = None, **settings: object
) -> Iterator[ServiceProcess]:
    """The service `services.<part>`, from its readiness to its end.

    `SLUICE_<PART>_*` is set from the keywords, and whatever is in `variables`.
    """
    port = free_port()
    prefix = f"SLUICE_{part.upper()}"
    environment = {
        **os.environ,
        **(variables or {}),
        f"{prefix}_HOST": "127.0.0.1",
        f"{prefix}_PORT": str(port),
        **{f"{prefix}_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with _process(f"services.{part}.main", environment, f"http://127.0.0.1:{port}") as service:
        yield service


def free_port() -> int:
    """A port on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _process(module: str, environment: Mapping[str, str], url: str) -> Iterator[ServiceProcess]:
    with TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=log, stderr=log)  # noqa: S603 - our own module
        try:
            if not _became_ready(process, url):
                log.seek(0)
                raise RuntimeError(f"{module} did not become ready:\n{log.read().decode(errors='replace')}")
            yield ServiceProcess(url, process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=_EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _became_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=_PROBE_SECONDS * 10).is_success:
                return True
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(_PROBE_SECONDS)
    return False
