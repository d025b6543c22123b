"""Processes of this platform that no supervisor looks after any more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import psutil

from infra.embedded.home import Home

# Given to every part, inherited by whatever a part starts.
MARKER: Final = "SLUICE_EMBEDDED_HOME"
_PATIENCE_SECONDS: Final = 30


def end_leftovers(home: Home) -> None:
    """End what is left of this platform, and of no other; first politely, then by force."""
    found = list(_leftovers(home))
    for process in found:
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(found, timeout=_PATIENCE_SECONDS)
    for process in stubborn:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(stubborn)


def _leftovers(home: Home) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == str(home.path) or _works_in_its_folder(process, home):
                yield process
        except psutil.Error:
            continue  # gone meanwhile, or another user's


def _works_in_its_folder(process: psutil.Process, home: Home) -> bool:
    # They write their titles over their environment, but stay in the folders that they were started in.
    return (process.name(), process.cwd()) in {
        ("postgres", str(home.data("postgres"))),
        ("redis-server", str(home.data("redis"))),
        ("nginx", str(home.run / "nginx")),
    }


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        # PostgreSQL takes SIGTERM as "wait until every client has gone", and SIGINT as "now".
        polite_to_postgres = number == signal.SIGTERM and process.name() == "postgres"
        process.send_signal(signal.SIGINT if polite_to_postgres else number)
