"""Ctrl-C, and the SIGTERM with which a script's time limit ends a command: both leave time to clean up."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from services.cli.output import say

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def let_sigterm_unwind() -> None:
    """Have SIGTERM end the command as Ctrl-C does: through every `finally`."""
    signal.signal(signal.SIGTERM, _exit)


@contextmanager
def postponed() -> Iterator[None]:
    """What arrives inside has its effect at the end; what arrives after that, at once."""
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in heeded}
    arrived: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, _: object) -> None:
        arrived.append(number)
        restore()
        say("Cleaning up first. Once more, and it ends at once.")

    for number in heeded:
        signal.signal(number, remember)
    try:
        yield
    finally:
        restore()
    if arrived:
        signal.raise_signal(arrived[0])


def _exit(number: int, _: object) -> NoReturn:
    # How a shell reports the end by a signal.
    sys.exit(128 + number)
