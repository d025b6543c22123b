"""One supervisord per platform: it starts the parts, restarts those that crash, and rotates their logs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xmlrpc.client
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import psutil
from supervisor.xmlrpc import SupervisorTransport

from infra.embedded.failures import PlatformError
from infra.embedded.home import Home, write_private
from infra.embedded.parts import Part

RUNNING: Final = frozenset({"STARTING", "RUNNING"})
STOPPED: Final = frozenset({"STOPPED", "EXITED", "FATAL"})
_START_SECONDS: Final = 20
_FAULT_UNKNOWN: Final = 10
_FAULT_NOT_RUNNING: Final = 70
_FAULT_ALREADY_STARTED: Final = 60
_PROGRAM: Final = """
[program:{name}]
command={command}
directory={folder}
environment={environment}
autostart=false
autorestart=true
startsecs=1
startretries=20
stopsignal={stop_signal}
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""
_SUPERVISOR: Final = """
[supervisord]
logfile={log}
logfile_maxbytes=1MB
logfile_backups=1
pidfile={pid_file}
childlogdir={logs}
umask=077
{user}

[unix_http_server]
file={socket}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


@dataclass(frozen=True)
class ProcessState:
    """A part as the supervisor sees it. `pid` is 0 while there is no process."""

    state: str
    pid: int
    started_at: int


class Supervision:
    """The supervisor of one platform, which may or may not be running."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pid_file = home.run / "supervisord.pid"

    def is_running(self) -> bool:
        """Whether it answers."""
        try:
            with self._connected() as supervisor:
                state: Any = supervisor.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return bool(state["statename"] == "RUNNING")

    def launch(self, parts: Sequence[Part], environment: Mapping[str, str]) -> None:
        """Start the supervisor, with no part running yet; each part will inherit the environment."""
        configuration = self._home.run / "supervisord.conf"
        write_private(configuration, self._configuration(parts))
        self._home.socket.unlink(missing_ok=True)
        log = self._home.log("supervisord")
        with log.open("ab") as output:
            # `-m`, because the script's first line may point to where the virtual environment was before.
            subprocess.run(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
                cwd=self._home.root,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        deadline = monotonic() + _START_SECONDS
        while not self.is_running():
            if monotonic() > deadline:
                raise PlatformError(f"supervisord did not start; see {log}:\n{last_lines(log)}")
            sleep(0.02)

    def start(self, part: str) -> None:
        """Begin to start a part; no error if it is running."""
        self._unless({_FAULT_ALREADY_STARTED}, "startProcess", part, False)

    def stop(self, part: str) -> None:
        """Begin to stop a part; no error if it is not running."""
        self._unless({_FAULT_NOT_RUNNING, _FAULT_UNKNOWN}, "stopProcess", part, False)

    def signal(self, part: str, name: str) -> None:
        """Send a signal to a part's process; no error if there is none."""
        self._unless({_FAULT_NOT_RUNNING, _FAULT_UNKNOWN}, "signalProcess", part, name)

    def state(self, part: str) -> ProcessState:
        """The part's state now; stopped if the supervisor was started before there was such a part."""
        try:
            with self._connected() as supervisor:
                info: Any = supervisor.getProcessInfo(part)
        except xmlrpc.client.Fault as error:
            if error.faultCode != _FAULT_UNKNOWN:
                raise
            return ProcessState("STOPPED", 0, 0)
        return ProcessState(info["statename"], info["pid"], info["start"])

    def shut_down(self) -> None:
        """End the supervisor and whatever still runs under it; return when it is gone."""
        process = self._process()
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        process.wait()

    def ending_of(self, part: str) -> str:
        """How the part's process last ended, in the supervisor's words."""
        log = self._home.log("supervisord").read_text(errors="replace")
        endings = re.findall(rf"exited: {re.escape(part)} \((.+?)\)", log)
        return endings[-1] if endings else "no exit code known"

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            ours = str(self._home.run / "supervisord.conf") in process.cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        transport = SupervisorTransport(None, None, f"unix://{self._home.socket}")
        try:
            yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
        finally:
            transport.close()

    def _unless(self, faults: Collection[int], method: str, *arguments: str | bool) -> None:
        try:
            with self._connected() as supervisor:
                getattr(supervisor, method)(*arguments)
        except xmlrpc.client.Fault as error:
            if error.faultCode in faults:
                return
            if error.faultCode == _FAULT_UNKNOWN:
                raise PlatformError(
                    f"{arguments[0]} was installed while the platform was up. Start all of it again: make down, make up"
                ) from error
            raise PlatformError(f"supervisord: {error.faultString}") from error

    def _configuration(self, parts: Sequence[Part]) -> str:
        home = self._home
        supervisor = _SUPERVISOR.format(
            log=_escaped(home.log("supervisord")),
            pid_file=_escaped(self._pid_file),
            logs=_escaped(home.logs),
            socket=_escaped(home.socket),
            user="user=root" if os.geteuid() == 0 else "",
        )
        return supervisor + "".join(self._program(part) for part in parts)

    def _program(self, part: Part) -> str:
        return _PROGRAM.format(
            name=part.name,
            command=" ".join(_quoted(word) for word in part.command),
            folder=_escaped(part.folder),
            environment=",".join(f"{name}={_quoted(value)}" for name, value in part.environment.items()),
            stop_signal=part.stop_signal,
            stop_seconds=part.stop_seconds,
            log=_escaped(self._home.log(part.name)),
        )


def last_lines(log: Path, count: int = 20) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else "(no log)"


def _escaped(value: str | Path) -> str:
    return str(value).replace("%", "%%")


def _quoted(value: str) -> str:
    quote = "'" if '"' in value else '"'
    return f"{quote}{_escaped(value)}{quote}"
