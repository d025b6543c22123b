"""Who may write, who waits, and when who is refused should come again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
from sluice.errors import TemporarilyUnavailable, TooManyRequests
from sluice.settings import LlmServiceSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Model:
    """A scheduler, and answers that take as long as they are told."""

    def __init__(self, slots: int, **settings: float) -> None:
        self.clock = Clock()
        self.scheduler = Scheduler(slots, LlmServiceSettings(**settings), LlmMetrics(), self.clock)

    async def answer(self, tokens: int, complete: asyncio.Event) -> None:
        async with self.scheduler.reading() as deadline:
            pass
        async with self.scheduler.slot(tokens, deadline):
            await complete.wait()

    async def read(self, read: asyncio.Event) -> None:
        async with self.scheduler.reading():
            await read.wait()


def run(case: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(case(), 30))  # type: ignore[arg-type]


async def a_moment() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("together", "speed"), [(1, 500), (2, 1000), (4, 2000)])
def test_the_speed_is_that_of_the_answers_that_were_written_and_not_of_all_slots(together: int, speed: float) -> None:
    model = Model(slots=8)

    async def case() -> None:
        for _ in range(40):
            complete = asyncio.Event()
            answers = [asyncio.create_task(model.answer(1000, complete)) for _ in range(together)]
            await a_moment()
            model.clock.now += 2
            complete.set()
            await asyncio.gather(*answers)

    run(case)
    assert model.scheduler.stats()["tokens_per_second"] == pytest.approx(speed, rel=0.01)


def test_an_answer_that_had_company_for_half_of_its_time_counts_one_and_a_half() -> None:
    model = Model(slots=8)

    async def case() -> None:
        complete, company_complete = asyncio.Event(), asyncio.Event()
        answer = asyncio.create_task(model.answer(1000, complete))
        await a_moment()
        model.clock.now += 1
        company = asyncio.create_task(model.answer(10**6, company_complete))
        await a_moment()
        model.clock.now += 1
        complete.set()
        await answer
        # From a guess of 100, by a fifth towards 750.
        assert model.scheduler.stats()["tokens_per_second"] == 230
        company.cancel()

    run(case)


def test_who_is_refused_comes_again_when_all_that_is_ahead_is_done() -> None:
    model = Model(slots=1, queue_requests=1)

    async def case() -> None:
        complete = asyncio.Event()
        ahead = [asyncio.create_task(model.answer(tokens, complete)) for tokens in (500, 300)]
        await a_moment()
        with pytest.raises(TooManyRequests) as refused:
            await model.answer(200, complete)
        # A hundred tokens a second, as long as nothing is known. How many the refused one has was not looked at.
        assert refused.value.retry_after == 8
        complete.set()
        await asyncio.gather(*ahead)

    run(case)


def test_requests_that_are_read_are_in_the_queue_and_beyond_it_refused() -> None:
    model = Model(slots=2, queue_requests=3)

    async def case() -> None:
        read, complete = asyncio.Event(), asyncio.Event()
        active = asyncio.create_task(model.answer(100, complete))
        reading = [asyncio.create_task(model.read(read)) for _ in range(4)]
        await a_moment()
        assert model.scheduler.stats()["reading"] == 4
        with pytest.raises(TooManyRequests) as refused:
            await model.read(read)
        assert (refused.value.code, refused.value.retry_after) == ("queue_full", 1)
        read.set()
        await asyncio.gather(*reading)
        await model.read(read)
        complete.set()
        await active

    run(case)
    assert model.scheduler.stats()["reading"] == 0


def test_a_request_that_is_not_read_in_time_is_dropped() -> None:
    model = Model(slots=2, queue_seconds=0.05)

    async def case() -> None:
        with pytest.raises(TemporarilyUnavailable) as dropped:
            await model.read(asyncio.Event())
        assert dropped.value.code == "queue_deadline"

    run(case)


def test_reading_and_waiting_have_one_deadline() -> None:
    model = Model(slots=1, queue_seconds=1000)

    async def case() -> None:
        complete = asyncio.Event()
        active = asyncio.create_task(model.answer(100, complete))
        await a_moment()
        with pytest.raises(TemporarilyUnavailable) as dropped:
            async with model.scheduler.slot(100, asyncio.get_running_loop().time()):
                pass
        assert dropped.value.code == "queue_deadline"
        complete.set()
        await active

    run(case)
