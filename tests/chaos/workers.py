"""Processes of ours that run beside the platform's own parts, and can be killed without a supervisor's help."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from infra.embedded.leftovers import MARKER
from infra.embedded.orphans import dying_with_parent

WORKER: Final = "services.workers.main"
DISPATCHER: Final = "services.workers.dispatcher"
_START_SECONDS: Final = 60


class Companion:
    """A second worker or dispatcher of a platform."""

    def __init__(self, name: str, module: str, home: Path, root: Path, variables: Mapping[str, str]) -> None:
        self.name = name
        self._module = module
        self._root = root
        self._metrics = home / "run" / f"{name}-metrics"
        self._log = home / "logs" / f"{name}.log"
        self._port = _free_port()
        self._environment = {
            **os.environ,
            **variables,
            "SLUICE_METRICS_PORT": str(self._port),
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics),
            # `down` ends what a crashed experiment leaves.
            MARKER: str(home),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where its metrics are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process itself, whose children run the steps."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return at once."""
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_parent([sys.executable, "-m", self._module]),
                cwd=self._root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Return when it serves its metrics, which it does just before it works."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                httpx.get(f"{self.url}/metrics", timeout=2).raise_for_status()
            except httpx.HTTPError:
                assert self.is_alive(), f"{self.name} ended; see {self._log}"
                assert time.monotonic() < deadline, f"{self.name} is not ready after {_START_SECONDS} s"
                time.sleep(0.1)
            else:
                return

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the process, and not its children, by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)
        self._wait(10)

    def terminate(self, seconds: float) -> float:
        """Ask it to end; the seconds that it took, or `TimeoutExpired` after `seconds`."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        self._wait(seconds)
        return time.monotonic() - began

    def _wait(self, seconds: float) -> None:
        assert self._process is not None
        self._process.wait(seconds)

    def end(self) -> None:
        """Make sure that nothing of it is left."""
        if self.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            self._wait(10)


@contextmanager
def running(*companions: Companion) -> Iterator[None]:
    """With these processes up."""
    try:
        for one in companions:
            one.start()
        for one in companions:
            one.wait_ready()
        yield
    finally:
        for one in companions:
            one.end()


def until(condition: Callable[[], bool], seconds: float, what: str, every: float = 0.05) -> float:
    """Return when the condition holds; the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, f"it did not happen within {seconds:.0f} s: {what}"
        time.sleep(every)
    return time.monotonic() - began


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
