"""What a refused request is told to wait for: by what was measured, and for all that is ahead of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
from sluice.errors import TooManyRequests
from sluice.settings import LlmServiceSettings


def scheduler(slots: int) -> Scheduler:
    return Scheduler(slots, LlmServiceSettings(queue_requests=1), LlmMetrics())


def test_what_is_being_written_is_ahead_of_a_request_too() -> None:
    async def case() -> None:
        some = scheduler(slots=2)
        speed = some.stats()["tokens_per_second"]
        async with AsyncExitStack() as active:
            for _ in range(2):
                await active.enter_async_context(some.slot(400))
            waiting = asyncio.create_task(active.enter_async_context(some.slot(300)))
            await asyncio.sleep(0)
            with pytest.raises(TooManyRequests) as refused:
                async with some.slot(100):
                    pass
            waiting.cancel()
            assert refused.value.retry_after == pytest.approx((400 + 400 + 300 + 100) / speed)

    asyncio.run(case())


def test_one_answer_alone_does_not_count_as_if_all_slots_had_been_as_fast() -> None:
    async def case() -> float:
        some = scheduler(slots=8)
        for _ in range(50):
            async with some.slot(20):
                await asyncio.sleep(0.02)
        return float(some.stats()["tokens_per_second"])

    # 20 tokens take 0.02 s at least, so no more than 1,000 a second were seen.
    assert asyncio.run(case()) <= 1_000
