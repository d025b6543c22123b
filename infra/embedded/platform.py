"""The embedded platform: up, down, and one part at a time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import psutil

from infra.embedded.ascent import Ascent, Report
from infra.embedded.credentials import Credentials
from infra.embedded.environment import EDGE_PACKAGES, has_edge, service_environment, write_env_file
from infra.embedded.failures import PlatformError
from infra.embedded.home import Home
from infra.embedded.leftovers import MARKER, end_leftovers
from infra.embedded.nginx import nginx_part
from infra.embedded.parts import Layer, Part
from infra.embedded.ports import Ports, kept_ports
from infra.embedded.postgres import postgres_part
from infra.embedded.probes import NotReady
from infra.embedded.rabbitmq import rabbitmq_parts
from infra.embedded.services import ADMIN_EMAIL, errands, service_parts
from infra.embedded.stores import qdrant_part, redis_part, s3_part
from infra.embedded.supervision import RUNNING, STOPPED, Supervision

_REPEAT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class PartStatus:
    """One line of `status`: `rss_bytes` sums the part's processes, `uptime_seconds` is 0 when there are none."""

    name: str
    state: str
    pids: list[int]
    rss_bytes: int
    uptime_seconds: int
    address: str


class Platform:
    """The real servers and services of one checkout, as child processes of one supervisor.

    `home` holds all state and `root` is the checkout that the services run from. Every method may be called from any
    process of the user who started the platform; those that start or stop something wait until it is done.
    """

    def __init__(self, home: Path, root: Path, report: Report = lambda _: None) -> None:
        self._home = Home(home.resolve(), root.resolve())
        self._report = report
        self._home.make()
        self._credentials = Credentials(self._home)
        self._supervision = Supervision(self._home)

    def up(self, *, only_stores: bool = False) -> bool:
        """Start what is not running, in order; False if everything was up already.

        When a part fails, or on Ctrl-C, everything that this call started is stopped again. `SLUICE_*` variables of the
        caller reach the services, unless the platform was up in part: its supervisor keeps those that it began with.
        """
        with self._home.locked():
            wanted = [part for part in self._parts if not only_stores or part.layer <= Layer.STORE]
            if self._supervision.is_running() and all(self._is_up(part) for part in wanted):
                return False
            self._rise(wanted, schema=not only_stores)
            if not only_stores:
                self._mention_missing_edge()
                self._show_administrator_once()
        return True

    def down(self) -> None:
        """Stop everything, services before stores; no process is left, no data lost, no error if nothing runs."""
        with self._home.locked():
            self._descend(self._parts)
            self._finish()

    def start(self, name: str) -> None:
        """Start one part of a platform that is up, and return when it is ready."""
        part = self._part(name)
        with self._home.locked():
            self._require_supervisor()
            Ascent(self._home, self._supervision, self._report).rise([_alone(part)])

    def stop(self, name: str) -> None:
        """Stop one part gracefully; the supervisor leaves it stopped."""
        part = self._part(name)
        with self._home.locked():
            self._require_supervisor()
            self._descend([part])

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """Without this part inside the block; it comes back whatever happens there."""
        self.stop(name)
        try:
            yield
        finally:
            self.start(name)

    def restart(self, name: str) -> None:
        """Stop one part gracefully and start it again."""
        self.stop(name)
        self.start(name)

    def kill(self, name: str) -> None:
        """End the process group of a part by SIGKILL, as a crash would; the supervisor then restarts it."""
        self._require_supervisor()
        pid = self._supervision.state(self._part(name).name).pid
        if pid == 0:
            raise PlatformError(f"{name} is not running.")
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def wait_ready(self, name: str) -> None:
        """Return when a part that was started, or that the supervisor restarts, does its work."""
        part = self._part(name)
        deadline = time.monotonic() + part.start_seconds
        while not self._is_up(part):
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"{name} was not ready after {part.start_seconds:.0f} s; see {self._home.log(name)}"
                )
            time.sleep(0.05)

    def pids(self, name: str) -> list[int]:
        """The processes of a part: the one under the supervisor first, then those that it started."""
        if not self._supervision.is_running():
            return []
        pid = self._supervision.state(self._part(name).name).pid
        try:
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))] if pid else []
        except psutil.NoSuchProcess:
            return []

    def status(self) -> list[PartStatus]:
        """Every part, in the order of starting."""
        return [self._status(part) for part in self._parts]

    def environment(self) -> dict[str, str]:
        """The `SLUICE_*` variables of the services; with them, any command talks to this platform."""
        return service_environment(self._home, self._ports, self._credentials)

    def log(self, name: str) -> Path:
        """The log of a part."""
        return self._home.log(self._part(name).name)

    def stay(self, invitation: str) -> None:
        """Report the invitation and wait; on Ctrl-C, or when the platform ends by itself, stop everything."""
        try:
            self._report(invitation)
            while self._supervision.is_running():
                time.sleep(1)
        finally:
            with _undisturbed():
                self.down()

    @cached_property
    def _ports(self) -> Ports:
        return kept_ports(self._home)

    @cached_property
    def _parts(self) -> list[Part]:
        home, ports, credentials = self._home, self._ports, self._credentials
        environment = self.environment()
        return [
            *rabbitmq_parts(home, ports, credentials),
            postgres_part(home, ports.postgres, credentials),
            redis_part(home, ports.redis, credentials),
            s3_part(home, ports.s3, credentials),
            qdrant_part(home, ports.qdrant),
            *service_parts(home, ports, environment),
            *([nginx_part(home, environment)] if has_edge() else []),
        ]

    def _part(self, name: str) -> Part:
        for part in self._parts:
            if part.name == name:
                return part
        raise PlatformError(f"There is no part {name!r}; there are {', '.join(part.name for part in self._parts)}.")

    def _rise(self, parts: Sequence[Part], *, schema: bool) -> None:
        launched = not self._supervision.is_running()
        ascent = Ascent(self._home, self._supervision, self._report)
        process_environment = os.environ | self.environment()
        try:
            if launched:
                end_leftovers(self._home)
                write_env_file(self._home, self.environment())
                self._supervision.launch(self._parts, process_environment | self._inherited())
            todo = errands(self._home, self._ports, self._credentials, process_environment, schema=schema)
            ascent.rise([*parts, *todo])
        except BaseException:
            # Ctrl-C as well: nobody wants half a platform.
            with _undisturbed():
                self._report("stopping what was started ...")
                self._descend(ascent.started)
                if launched:
                    self._finish()
            raise

    def _descend(self, parts: Sequence[Part]) -> None:
        if not self._supervision.is_running():
            return
        for layer in sorted(Layer, reverse=True):
            stopping = [part for part in parts if part.layer == layer]
            for part in stopping:
                self._supervision.stop(part.name)
            self._await_end(stopping)

    def _mention_missing_edge(self) -> None:
        if not has_edge():
            missing = f"apt-get install --no-install-recommends {' '.join(EDGE_PACKAGES)}"
            self._report(f"Without nginx, which is not installed, the API is reached directly. To have it: {missing}")

    def _show_administrator_once(self) -> None:
        shown = self._home.run / "administrator-shown"
        if shown.exists():
            return
        file = self._credentials.admin_password_file()
        self._report(f"Sign in as {ADMIN_EMAIL} with the password {file.read_text().strip()} (kept in {file}).")
        shown.touch()

    def _inherited(self) -> dict[str, str]:
        variables = {MARKER: str(self._home.path)}
        for part in self._parts:
            variables.update(part.inherited)
        return variables

    def _await_end(self, stopping: Sequence[Part]) -> None:
        # Without a limit of our own: the supervisor kills a part that has overstayed.
        repeat_at = time.monotonic() + _REPEAT_SECONDS
        while going := [part for part in stopping if self._supervision.state(part.name).state not in STOPPED]:
            if time.monotonic() > repeat_at:
                repeat_at += _REPEAT_SECONDS
                for part in going:
                    if part.repeat_stop_signal:
                        self._supervision.signal(part.name, part.stop_signal)
            time.sleep(0.05)

    def _finish(self) -> None:
        self._supervision.shut_down()
        end_leftovers(self._home)
        if self._home.socket.parent != self._home.run:
            self._home.socket.unlink(missing_ok=True)

    def _is_up(self, part: Part) -> bool:
        if self._supervision.state(part.name).state not in RUNNING:
            return False
        try:
            part.probe()
        except NotReady:
            return False
        return True

    def _status(self, part: Part) -> PartStatus:
        if not self._supervision.is_running():
            return PartStatus(part.name, "STOPPED", [], 0, 0, part.address)
        state = self._supervision.state(part.name)
        pids = self.pids(part.name)
        uptime = int(time.time()) - state.started_at if pids else 0
        return PartStatus(part.name, state.state, pids, sum(map(_resident, pids)), uptime, part.address)

    def _require_supervisor(self) -> None:
        if not self._supervision.is_running():
            raise PlatformError("The platform is not up; start it with `make up`.")


def _alone(part: Part) -> Part:
    # Whoever starts one part by hand knows what else is up.
    return replace(part, depends_on=())


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a second Ctrl-C not interrupt the stopping that the first one began."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
