"""Whether it is worth asking a server that has failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sluice.errors import TemporarilyUnavailable

OPEN_SECONDS: Final = 30.0


class CircuitBreaker:
    """Closed, open, half-open. Belongs to one event loop.

    Closed, everything passes. After so many failures in a row it is open, and nothing passes for a while. Then it is
    half-open: one request passes, and its outcome decides.
    """

    def __init__(
        self,
        failures: int,
        open_seconds: float = OPEN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failures`: so many in a row open it; 0: it is never open."""
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether nothing passes now."""
        return self._remaining() > 0 or (self._opened_at is not None and self._trying)

    def enter(self) -> None:
        """Ask to pass; `TemporarilyUnavailable` says when to come again. Tell the outcome afterwards."""
        if self.is_open:
            raise TemporarilyUnavailable(
                f"The remote model failed {self._failures} times in a row and is left alone for a while.",
                code="remote_circuit_open",
                retry_after=max(1.0, self._remaining()),
            )
        self._trying = self._opened_at is not None

    def succeeded(self) -> None:
        """The server answered."""
        self._failures, self._opened_at, self._trying = 0, None, False

    def failed(self) -> None:
        """The server did not do what it should."""
        self._failures += 1
        self._trying = False
        if self._limit and self._failures >= self._limit:
            self._opened_at = self._clock()

    def gave_up(self) -> None:
        """Whoever asked went away; that says nothing of the server."""
        self._trying = False

    def _remaining(self) -> float:
        return 0.0 if self._opened_at is None else self._opened_at + self._open_seconds - self._clock()
