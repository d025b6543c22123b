"""Who may write an answer now, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from services.llm.metrics import LlmMetrics
from sluice.errors import TemporarilyUnavailable, TooManyRequests
from sluice.settings import LlmServiceSettings

_DRAINING_RETRY_SECONDS = 5.0
_WEIGHT_OF_NEWEST = 0.2
_LONGEST_RETRY_SECONDS = 300.0


class Scheduler:
    """Hands out the backend's slots in the order of arrival. Belongs to one event loop."""

    def __init__(self, slots: int, settings: LlmServiceSettings, metrics: LlmMetrics) -> None:
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._queue_requests = settings.queue_requests
        self._queue_seconds = settings.queue_seconds
        self._metrics = metrics
        self._waiting = 0
        self._active = 0
        self._seconds_per_answer = 1.0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        metrics.waiting.set_function(lambda: self._waiting)
        metrics.active.set_function(lambda: self._active)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot while inside.

        Raises `TooManyRequests` when the queue is full, `TemporarilyUnavailable` when the service drains or the wait
        was too long. Cancel to leave the queue.
        """
        if self.draining:
            raise TemporarilyUnavailable(
                "The service is shutting down.", code="draining", retry_after=_DRAINING_RETRY_SECONDS
            )
        if self._free.locked() and self._waiting >= self._queue_requests:
            raise TooManyRequests(
                f"{self._waiting} requests are waiting, and no more may.",
                code="queue_full",
                retry_after=self._expected_wait(),
            )
        with self._accepted():
            await self._wait_for_slot()
            began = time.monotonic()
            self._active += 1
            try:
                yield
            finally:
                self._active -= 1
                self._free.release()
                self._seconds_per_answer += _WEIGHT_OF_NEWEST * (time.monotonic() - began - self._seconds_per_answer)

    async def drain(self) -> None:
        """Accept nothing new, and return when all that was accepted is answered."""
        self.draining = True
        await self._idle.wait()

    def stats(self) -> dict[str, Any]:
        """Facts about this moment."""
        return {
            "draining": self.draining,
            "slots": self._slots,
            "active": self._active,
            "waiting": self._waiting,
            "queue_capacity": self._queue_requests,
            "seconds_per_answer": round(self._seconds_per_answer, 3),
        }

    async def _wait_for_slot(self) -> None:
        began = time.monotonic()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise TemporarilyUnavailable(
                f"The request waited {self._queue_seconds:g} seconds and was dropped.",
                code="queue_deadline",
                retry_after=self._expected_wait(),
            ) from None
        finally:
            self._waiting -= 1
        self._metrics.queue_wait.observe(time.monotonic() - began)

    def _expected_wait(self) -> float:
        return min(_LONGEST_RETRY_SECONDS, (self._waiting + 1) * self._seconds_per_answer / self._slots)

    @contextmanager
    def _accepted(self) -> Iterator[None]:
        self._idle.clear()
        try:
            yield
        finally:
            # This request is neither waiting nor active any more.
            if not self._waiting and not self._active:
                self._idle.set()
