"""Who may write an answer now, who waits, and who is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from services.llm.metrics import LlmMetrics
from sluice.errors import TemporarilyUnavailable, TooManyRequests
from sluice.settings import LlmServiceSettings

_WEIGHT_OF_NEWEST = 0.2
_LONGEST_RETRY_SECONDS = 300.0
# Before anything is known: a small model on two cores.
_FIRST_GUESS = 100.0


class Scheduler:
    """Hands out the slots of one model in the order of arrival. Belongs to one event loop."""

    def __init__(
        self,
        slots: int,
        settings: LlmServiceSettings,
        metrics: LlmMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._queue_requests = settings.queue_requests
        self._queue_tokens = settings.queue_tokens
        self._queue_seconds = settings.queue_seconds
        self._metrics = metrics
        self._clock = clock
        self.reading_requests = 0
        self.waiting = 0
        self.active = 0
        self._waiting_tokens = 0
        self._active_tokens = 0
        # Seconds of all answers together, up to when one last began or ended.
        self._answer_seconds = 0.0
        self._counted_at = clock()
        self._tokens_per_second = _FIRST_GUESS

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[float]:
        """Have a request read while inside; the time of the event loop by which it must have a slot.

        Raises what `slot` raises: reading takes processor time too, so it waits in the same queue.
        """
        if self.reading_requests + self.waiting + self.active >= self._slots + self._queue_requests:
            raise self._full(f"{self.reading_requests + self.waiting} requests are waiting, and no more may.", 0)
        deadline = asyncio.get_running_loop().time() + self._queue_seconds
        self.reading_requests += 1
        try:
            async with asyncio.timeout_at(deadline):
                yield deadline
        except TimeoutError:
            raise self._too_late(0) from None
        finally:
            self.reading_requests -= 1

    @asynccontextmanager
    async def slot(self, tokens: int, deadline: float) -> AsyncIterator[None]:
        """Hold a slot while inside, for so many tokens to be read and written.

        Raises `TooManyRequests` when the queue is full, `TemporarilyUnavailable` when the deadline, which `reading`
        gave, has passed. Cancel to leave the queue.
        """
        if self._free.locked():
            self._require_room(tokens)
        await self._wait_for_slot(tokens, deadline)
        began = self._change_active(1, tokens)
        try:
            yield
            self._learn(tokens, *began)
        finally:
            self._change_active(-1, -tokens)
            self._free.release()

    def stats(self) -> dict[str, Any]:
        """Facts about this moment."""
        return {
            "slots": self._slots,
            "active": self.active,
            "reading": self.reading_requests,
            "waiting": self.waiting,
            "waiting_tokens": self._waiting_tokens,
            "queue_capacity": self._queue_requests,
            "queue_capacity_tokens": self._queue_tokens,
            "tokens_per_second": round(self._tokens_per_second, 1),
        }

    def _require_room(self, tokens: int) -> None:
        if self.waiting >= self._queue_requests:
            what = f"{self.waiting} requests are waiting, and no more may."
        # Whoever would be the first in line is let in, however long the prompt: it will be next.
        elif self.waiting and self._waiting_tokens + tokens > self._queue_tokens:
            what = f"Requests of {self._waiting_tokens} tokens are waiting; {self._queue_tokens} may."
        else:
            return
        raise self._full(what, tokens)

    def _full(self, what: str, tokens: int) -> TooManyRequests:
        return TooManyRequests(what, code="queue_full", retry_after=self._expected_wait(tokens))

    def _too_late(self, tokens: int) -> TemporarilyUnavailable:
        return TemporarilyUnavailable(
            f"The request waited {self._queue_seconds:g} seconds and was dropped.",
            code="queue_deadline",
            retry_after=self._expected_wait(tokens),
        )

    async def _wait_for_slot(self, tokens: int, deadline: float) -> None:
        began = self._clock()
        with self._in_line(tokens):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._free.acquire()
            except TimeoutError:
                raise self._too_late(tokens) from None
        self._metrics.queue_wait.observe(self._clock() - began)

    @contextmanager
    def _in_line(self, tokens: int) -> Iterator[None]:
        self.waiting += 1
        self._waiting_tokens += tokens
        try:
            yield
        finally:
            self.waiting -= 1
            self._waiting_tokens -= tokens

    def _change_active(self, answers: int, tokens: int) -> tuple[float, float]:
        """Note who writes; the time, and the seconds of all answers up to now."""
        now = self._clock()
        self._answer_seconds += self.active * (now - self._counted_at)
        self._counted_at = now
        self.active += answers
        self._active_tokens += tokens
        return now, self._answer_seconds

    def _learn(self, tokens: int, began: float, answer_seconds: float) -> None:
        """An answer took its share of the model: all together are as many times faster as were active beside it."""
        now, answer_seconds_now = self._change_active(0, 0)
        seconds = max(now - began, 0.001)
        newest = (answer_seconds_now - answer_seconds) / seconds * tokens / seconds
        self._tokens_per_second += _WEIGHT_OF_NEWEST * (newest - self._tokens_per_second)

    def _expected_wait(self, tokens: int) -> float:
        ahead = self._active_tokens + self._waiting_tokens
        return min(_LONGEST_RETRY_SECONDS, (ahead + tokens) / max(self._tokens_per_second, 0.1))
