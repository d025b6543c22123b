"""The thread that runs the models: whose turn it is, and that it outlives whatever may be raised there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from services.emb.admission import Throughput
from services.emb.backends.base import Vectors
from services.emb.catalog import WantedModel
from services.emb.metrics import EmbMetrics
from services.emb.model_thread import EmbeddingJob, ModelThread
from services.emb.models import Model
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.wire.embeddings import InputType

POISON, HALF, SHORT = 666, 667, 668


class FakeModel:
    """The vector of a text is its first token, twice."""

    version, form, dimension, max_tokens, tokenizer_json = "v1", "fake", 2, 512, b"{}"

    def __init__(self) -> None:
        self.passes: list[list[int]] = []

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        raise NotImplementedError

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        firsts = [text.ids[0] for text in batch]
        self.passes.append(firsts)
        if POISON in firsts:
            raise ArithmeticError("this text breaks the model")
        vectors = np.array([[first] * 2 for first in firsts], dtype=np.float32)
        if HALF in firsts:
            return vectors[:, :1].repeat(3, axis=1)
        return vectors[:-1] if SHORT in firsts else vectors


class CountsNothing(EmbMetrics):
    """Metrics that are out of order."""

    def record_batch(self, texts: int, *, tokens: int, padded: int, seconds: float) -> None:
        raise OSError("no space left on device")


class Bench:
    def __init__(self, metrics: EmbMetrics | None = None, batch_tokens: int = 1024) -> None:
        self.backend = FakeModel()
        wanted = WantedModel("fake", "fake", "fake", 0, None, verified=Path)
        self.model = Model(wanted, self.backend, 1000, Throughput())
        self.thread = ModelThread(batch_tokens, 0.03, 15, metrics or EmbMetrics())

    def submit(self, *firsts: int, queued_at: float = 0) -> EmbeddingJob:
        """A job of one text of ten tokens for each first token."""
        job = EmbeddingJob(self.model, len(firsts), "document")
        job.queued_at = queued_at
        self.thread.submit(job, [TokenizedText([first] + [0] * 9, truncated=False) for first in firsts])
        return job


def run(bench: Bench, case: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        try:
            await asyncio.wait_for(case(), 30)
        finally:
            bench.thread.stop()

    asyncio.run(within())


@pytest.mark.parametrize("broken", [POISON, HALF, SHORT])
def test_only_the_request_whose_text_breaks_the_model_fails(broken: int) -> None:
    bench = Bench()

    async def case() -> None:
        before, guilty, after = bench.submit(1, 2), bench.submit(3, broken), bench.submit(4)
        bench.thread.start()
        await asyncio.wait([before.finished, guilty.finished, after.finished])
        assert sorted(bench.backend.passes[0]) == [1, 2, 3, 4, broken]
        assert isinstance(guilty.finished.exception(), (ArithmeticError, ValueError))
        assert (before.finished.result(), after.finished.result()) == (None, None)
        assert (before.vectors[:, 0].tolist(), after.vectors[:, 0].tolist()) == ([1, 2], [4])

    run(bench, case)


def test_a_list_makes_way_by_the_speed_that_the_model_was_found_to_have() -> None:
    bench = Bench(batch_tokens=16)
    bench.model.throughput.start_from(10, 1.0)

    async def case() -> None:
        jobs = [bench.submit(1, 2, 3, queued_at=0), bench.submit(4, queued_at=0.5)]
        bench.thread.start()
        await asyncio.wait([job.finished for job in jobs])
        assert bench.backend.passes[:2] == [[1], [4]]

    run(bench, case)


def test_the_thread_goes_on_when_its_work_cannot_be_counted() -> None:
    bench = Bench(CountsNothing())

    async def case() -> None:
        bench.thread.start()
        for number in range(3):
            job = bench.submit(number)
            await job.finished
            assert job.vectors[0].tolist() == [number, number]

    run(bench, case)
