"""A Docker engine that belongs to this run: its own socket, its own folder, stopped and removed after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from infra.swarm.docker import DeployError, Docker

# Debian's own: the oldest command that the stack has to work with, and one that can use BuildKit.
CLI: Final = "/usr/bin/docker"
_DAEMON: Final = "/usr/sbin/dockerd"
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 60


@contextmanager
def engine(home: Path, *, keep: bool) -> Iterator[Docker]:
    """A running engine that is the only manager of a swarm of one node; `keep` keeps its images for the next run."""
    # A socket's path may have a hundred characters, a checkout's more.
    run = Path("/run") / f"sluice-swarm-{sha256(str(home).encode()).hexdigest()[:8]}"
    data = home / "engine"
    run.mkdir(mode=0o700, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    socket = run / "docker.sock"
    with (home / "engine.log").open("ab") as log:
        daemon = subprocess.Popen(
            [
                _DAEMON,
                f"--host=unix://{socket}",
                f"--data-root={data}",
                f"--exec-root={run}/exec",
                f"--pidfile={run}/docker.pid",
                "--bridge=none",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    docker = Docker(CLI, {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"})
    try:
        _wait(docker, daemon, home)
        docker.call("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield docker
    finally:
        _stop(docker, daemon)
        if not keep:
            shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


def _wait(docker: Docker, daemon: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            docker.call("version", timeout=5)
        except DeployError as error:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise DeployError(f"The engine did not start; {home / 'engine.log'} says why. ({error})") from error
            time.sleep(0.5)
        else:
            return


def _stop(docker: Docker, daemon: subprocess.Popen[bytes]) -> None:
    with suppress(DeployError):
        docker.call("swarm", "leave", "--force", timeout=_STOP_SECONDS)
    with suppress(DeployError):
        left = docker.call("ps", "--all", "--quiet").split()
        if left:
            docker.call("rm", "--force", *left, timeout=_STOP_SECONDS)
    # Made by the engine for every swarm, and left behind by it.
    with suppress(DeployError):
        docker.call("network", "rm", "docker_gwbridge", timeout=_STOP_SECONDS)
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()
