"""The owner thread, with a context that can be made to fail, to block and to be slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest

from services.llm.backends.base import Facts, Piece, Sampling
from services.llm.backends.llama_cpp.answer import Order
from services.llm.backends.llama_cpp.backend import LlamaCppAnswer
from services.llm.backends.llama_cpp.engine import Engine
from services.llm.backends.llama_cpp.errors import DecodeFailed
from services.llm.backends.llama_cpp.rows import Row
from services.llm.backends.llama_cpp.stream import UNREAD_LIMIT, Stream
from sluice.errors import SluiceError, TemporarilyUnavailable

END = 0


class Chooser:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class FakeContext:
    """Says the number after the last one; remembers what it computed, in which thread."""

    def __init__(self, sequences: int = 4) -> None:
        self.sequences = sequences
        self.batches: list[list[Row]] = []
        self.outcomes: list[int] = []
        """Outcomes of the next decodes; 0 when there is none."""
        self.gate = threading.Event()
        self.gate.set()
        self.choosers: list[Chooser] = []
        self.forgotten: list[tuple[int, int]] = []
        self.threads: set[int] = set()
        self.closed = False

    def self_test(self) -> None:
        pass

    def decode(self, rows: Sequence[Row]) -> int:
        self.gate.wait(20)
        self.threads.add(threading.get_ident())
        self.batches.append(list(rows))
        return self.outcomes.pop(0) if self.outcomes else 0

    def sampler(self, sampling: Sampling, grammar: str | None) -> Chooser:
        self.choosers.append(Chooser())
        return self.choosers[-1]

    def sample(self, sampler: Any, row: int) -> int:
        assert self.batches[-1][row].wanted
        return self.batches[-1][row].token + 1

    def forget(self, sequence: int, kept: int) -> bool:
        self.forgotten.append((sequence, kept))
        return True

    def saved_bytes(self, sequence: int) -> int:
        return len(b"state")

    def save(self, sequence: int) -> bytearray:
        return bytearray(b"state")

    def restore(self, sequence: int, state: bytearray) -> bool:
        return True

    def close(self) -> None:
        assert all(chooser.closed for chooser in self.choosers), "samplers are freed first"
        self.closed = True


class Words:
    def piece(self, token: int) -> bytes:
        return f"{token} ".encode()

    def ends_answer(self, token: int) -> bool:
        return token == END


class Bench:
    def __init__(self, context: FakeContext, stuck_seconds: float = 15) -> None:
        self.context = context
        self.engine = Engine(
            lambda: context, Words(), target_seconds=0.05, stuck_seconds=stuck_seconds, saved_bytes=1000
        )
        self.engine.start()

    def answer(self, prompt: Sequence[int], max_tokens: int = 3) -> LlamaCppAnswer:
        stream = Stream(asyncio.get_running_loop())
        return LlamaCppAnswer(self.engine, Order(prompt, max_tokens, Sampling(), None, stream))

    async def text(self, prompt: Sequence[int], max_tokens: int = 3) -> str:
        async with aclosing(self.answer(prompt, max_tokens).pieces()) as pieces:
            return "".join([piece.text async for piece in pieces if isinstance(piece, Piece)])


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(FakeContext())
    yield made
    made.context.gate.set()
    made.engine.stop()
    assert made.context.closed


def run(case: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(case(), 30))  # type: ignore[arg-type]


async def until(condition: Callable[[], object]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it never came to that")


def test_answers_side_by_side_share_each_step_in_the_order_of_their_sequences(bench: Bench) -> None:
    """Complaint 8."""

    async def case() -> None:
        texts = await asyncio.gather(*(bench.text([100 * n, 100 * n + 1], 20) for n in range(1, 5)))
        for number, text in enumerate(texts, start=1):
            assert text.split()[:3] == [str(100 * number + word) for word in (2, 3, 4)]
            assert len(text.split()) == 20

    run(case)
    full = [batch for batch in bench.context.batches if len(batch) == 4]
    assert full
    assert all([row.sequence for row in batch] == [0, 1, 2, 3] for batch in full)
    assert len(bench.context.threads) == 1


def test_only_the_last_row_of_a_prompt_is_asked_for_the_next_token(bench: Bench) -> None:
    run(lambda: _ignored(bench.text(list(range(1, 601)), 1)))

    wanted = [row for batch in bench.context.batches for row in batch if row.wanted]
    assert [(row.token, row.position) for row in wanted] == [(600, 599)]
    assert max(map(len, bench.context.batches)) <= 256


async def _ignored(work: Awaitable[object]) -> None:
    await work


def test_a_running_answer_gets_its_token_in_every_step_while_a_long_prompt_is_read(bench: Bench) -> None:
    async def case() -> None:
        async with aclosing(bench.answer([1, 2], 10_000).pieces()) as running:
            async for _ in running:
                break
            begun = len(bench.context.batches)
            reading = asyncio.create_task(bench.text(list(range(10_000, 12_000)), 1))
            async for _ in running:
                if reading.done():
                    break
            reads = [batch[0].token >= 10_000 for batch in bench.context.batches[begun:]]
            assert any(reads)
            assert not any(one and next_one for one, next_one in pairwise(reads))

    run(case)


def test_a_failed_step_fails_its_answers_and_nobody_else(bench: Bench) -> None:
    async def case() -> None:
        bench.context.outcomes = [-3]
        with pytest.raises(DecodeFailed):
            await bench.text([1, 2])
        assert await bench.text([1, 2]) == "3 4 5 "

    run(case)
    assert (0, 0) in bench.context.forgotten
    assert all(chooser.closed for chooser in bench.context.choosers)


def test_an_order_that_waits_is_not_touched_by_a_failed_step() -> None:
    bench = Bench(FakeContext(sequences=1))

    async def case() -> None:
        bench.context.gate.clear()
        failing = asyncio.create_task(bench.text([1, 2]))
        waiting = asyncio.create_task(bench.text([5, 6]))
        await asyncio.sleep(0.05)
        bench.context.outcomes = [-3]
        bench.context.gate.set()
        with pytest.raises(DecodeFailed):
            await failing
        assert await waiting == "7 8 9 "

    run(case)
    bench.engine.stop()


def test_a_full_memory_gives_up_what_only_waits_to_be_used_again(bench: Bench) -> None:
    async def case() -> None:
        await bench.text([1, 2])
        bench.context.outcomes = [1]
        assert await bench.text([500, 501]) == "502 503 504 "

    run(case)


def test_a_memory_that_stays_full_is_said_to_be_and_does_not_loop(bench: Bench) -> None:
    """Complaint 28."""

    async def case() -> None:
        bench.context.outcomes = [1, 1, 1]
        with pytest.raises(TemporarilyUnavailable) as refused:
            await bench.text([1, 2])
        assert refused.value.code == "context_full"

    run(case)


def test_a_reader_that_falls_behind_pauses_its_own_answer_only(bench: Bench) -> None:
    async def case() -> None:
        async with aclosing(bench.answer([1], 10_000).pieces()) as slow:
            await anext(slow)
            await until(lambda: bench.engine.stats()["tokens_written_total"] >= UNREAD_LIMIT - 2)
            assert len((await bench.text([500], 3 * UNREAD_LIMIT)).split()) == 3 * UNREAD_LIMIT
            assert bench.engine.stats()["tokens_written_total"] <= 4 * UNREAD_LIMIT + 2
            read = [piece async for piece in _first(slow, 5 * UNREAD_LIMIT)]
        numbers = [int(piece.text) for piece in read if isinstance(piece, Piece)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    run(case)


async def _first(pieces: Any, count: int) -> Any:
    async for piece in pieces:
        yield piece
        count -= 1
        if not count:
            return


def test_a_canceled_answer_is_gone_before_the_next_step_and_no_other_is_touched(bench: Bench) -> None:
    """Complaint 3."""

    async def case() -> None:
        staying = asyncio.create_task(bench.text([500], 300))
        leaving = bench.answer([1], 100_000).pieces()
        await anext(leaving)
        await leaving.aclose()
        seen = len(bench.context.batches)
        assert len((await staying).split()) == 300
        # The step that was being computed may have it still.
        assert not any(row.token < 500 for batch in bench.context.batches[seen + 2 :] for row in batch)

    run(case)


def test_a_canceled_prompt_is_not_read_to_its_end(bench: Bench) -> None:
    async def case() -> None:
        bench.context.gate.clear()
        reading = asyncio.create_task(bench.text(list(range(1, 4001)), 1))
        await until(lambda: bench.engine.stats()["sequences_busy"])
        reading.cancel()
        await asyncio.wait({reading})
        bench.context.gate.set()
        await until(lambda: not bench.engine.stats()["sequences_busy"])
        assert len(bench.context.batches) == 1

    run(case)


def test_an_order_that_is_canceled_while_it_waits_is_never_begun() -> None:
    bench = Bench(FakeContext(sequences=1))

    async def case() -> None:
        bench.context.gate.clear()
        running = asyncio.create_task(bench.text([1, 2]))
        await until(lambda: bench.engine.stats()["sequences_busy"])
        waiting = asyncio.create_task(bench.text([5, 6]))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
        bench.context.gate.set()
        assert await running == "3 4 5 "
        assert not any(row.token == 5 for batch in bench.context.batches for row in batch)

    run(case)
    bench.engine.stop()


def test_the_answer_ends_where_the_model_ends_it(bench: Bench) -> None:
    async def case() -> None:
        async with aclosing(bench.answer([-5], 100).pieces()) as pieces:
            told = [piece async for piece in pieces]
        assert [piece.text for piece in told if isinstance(piece, Piece)] == ["-4 ", "-3 ", "-2 ", "-1 "]
        assert told[-1] == Facts(finish_reason="stop")

    run(case)


def test_a_thread_that_makes_no_step_is_not_responsive() -> None:
    bench = Bench(FakeContext(), stuck_seconds=0.3)

    async def case() -> None:
        assert bench.engine.responsive
        bench.context.gate.clear()
        stuck = asyncio.create_task(bench.text([1]))
        await until(lambda: not bench.engine.responsive)
        bench.context.gate.set()
        await stuck
        await until(lambda: bench.engine.responsive)

    run(case)
    bench.engine.stop()
    assert not bench.engine.responsive


def test_a_thread_that_is_stopped_tells_whoever_still_waits() -> None:
    bench = Bench(FakeContext())

    async def case() -> None:
        running = asyncio.create_task(bench.text([1], 10**6))
        await until(lambda: bench.engine.stats()["tokens_written_total"])
        await asyncio.to_thread(bench.engine.stop)
        with pytest.raises(SluiceError):
            await running

    run(case)
    assert bench.context.closed


def test_a_thread_that_has_ended_takes_no_order() -> None:
    bench = Bench(FakeContext())
    assert bench.engine.stop()

    async def case() -> None:
        with pytest.raises(TemporarilyUnavailable):
            await bench.text([1])

    run(case)


def test_orders_that_wait_when_the_thread_ends_are_told() -> None:
    bench = Bench(FakeContext(sequences=1))

    async def case() -> None:
        running = asyncio.create_task(bench.text([1], 10**6))
        await until(lambda: bench.engine.stats()["tokens_written_total"])
        waiting = asyncio.create_task(bench.text([2]))
        await asyncio.sleep(0)
        await asyncio.to_thread(bench.engine.stop)
        for each in (running, waiting):
            with pytest.raises(TemporarilyUnavailable):
                await each

    run(case)


def test_a_thread_that_is_stuck_is_not_waited_for_and_keeps_its_context() -> None:
    bench = Bench(FakeContext(), stuck_seconds=0.2)

    async def case() -> None:
        bench.context.gate.clear()
        stuck = asyncio.create_task(bench.text([1]))
        await until(lambda: not bench.engine.responsive)
        assert not await asyncio.to_thread(bench.engine.stop)
        assert not bench.context.closed
        bench.context.gate.set()
        with pytest.raises(TemporarilyUnavailable):
            await stuck

    run(case)
    assert bench.engine.stop()


def test_a_context_that_cannot_be_opened_is_told_to_who_starts_the_thread() -> None:
    def refuse() -> FakeContext:
        raise MemoryError("none left")

    with pytest.raises(MemoryError):
        Engine(refuse, Words(), target_seconds=0.05, stuck_seconds=15, saved_bytes=0).start()


def test_five_thousand_steps_take_no_thread_of_their_own(bench: Bench) -> None:
    before = threading.active_count()

    async def case() -> None:
        await asyncio.gather(*(bench.text([n], 1250) for n in range(1, 5)))
        assert threading.active_count() == before

    run(case)
    assert bench.engine.stats()["tokens_written_total"] == 5000
