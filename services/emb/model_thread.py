"""The one thread that runs the models: it embeds batches of whatever requests wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np

from services.emb.backends.base import Vectors
from services.emb.batching import WaitingText, WaitingTexts
from services.emb.metrics import EmbMetrics
from services.emb.models import Model
from sluice import telemetry
from sluice.embedding_models.shapes import rows_for, width_for
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.memory import give_back_free_memory
from sluice.wire.embeddings import InputType

# The thread looks up this often when nothing arrives; a batch takes a fraction of that.
_BEAT_SECONDS = 1.0
_BEATS_UNTIL_STUCK = 4
# Bulk work has pauses of a second or two; memory is given back when it is really over.
_IDLE_BEATS = 10
# A pass over fewer tokens costs almost as much as one over this many.
_LEAST_BUDGET = 256


class EmbeddingJob:
    """The texts of one request, from the queue to the last vector."""

    def __init__(self, model: Model, texts: int, input_type: InputType) -> None:
        self.model = model
        self.input_type = input_type
        self.texts: Sequence[TokenizedText] = ()
        self.vectors: Vectors = np.empty((texts, model.backend.dimension), dtype=np.float32)
        self.missing = texts
        self.queued_at = time.monotonic()
        self.started = False
        self.wanted = True
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def lane(self) -> int:
        """Only texts for the same model go through it together."""
        return id(self.model)

    def end(self, error: Exception | None = None) -> None:
        """Settle the future: with an error, or with all vectors in place. Only the first end counts."""
        self.wanted = False
        if self.finished.done():
            return
        if error:
            self.finished.set_exception(error)
        else:
            self.finished.set_result(None)


Batch = list[WaitingText[EmbeddingJob]]


class ModelThread:
    """Jobs go in from the event loop; their futures are settled on the event loop."""

    def __init__(self, batch_tokens: int, pass_seconds: float, stuck_seconds: float, metrics: EmbMetrics) -> None:
        """A pass takes at most `batch_tokens`, and of documents no more than take `pass_seconds`.

        One that has not ended after `stuck_seconds` is not expected to end.
        """
        self._batch_tokens = batch_tokens
        self._pass_seconds = pass_seconds
        self._stuck_seconds = stuck_seconds
        self._beat_seconds = min(_BEAT_SECONDS, stuck_seconds / _BEATS_UNTIL_STUCK)
        self._metrics = metrics
        self._waiting: WaitingTexts[EmbeddingJob] = WaitingTexts()
        self._changed = threading.Condition()
        self._stopping = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to look for work; its results go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End after the current batch, unless that is stuck."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(max(0.0, self._stuck_seconds - self.seconds_since_beat))

    def submit(self, job: EmbeddingJob, texts: Sequence[TokenizedText]) -> None:
        """Let the texts of a job wait for their batches."""
        job.texts = texts
        waiting = [WaitingText(job, i, len(text.ids), job.input_type) for i, text in enumerate(texts)]
        with self._changed:
            self._waiting.add(waiting, now=job.queued_at, tokens_per_second=job.model.throughput.tokens_per_second)
            self._changed.notify()

    @property
    def seconds_since_beat(self) -> float:
        """How long ago the thread last came round for a batch, or began a pass."""
        return time.monotonic() - self._beat

    @property
    def responsive(self) -> bool:
        """Whether the thread lives and has shown itself lately."""
        return self._thread.is_alive() and self.seconds_since_beat < self._stuck_seconds

    def _run(self) -> None:
        idle_beats = 0
        while (batch := self._next_batch()) is not None:
            try:
                if batch:
                    self._embed(batch)
            except Exception as error:  # noqa: BLE001 - the thread goes on, and nobody waits for what it will not do
                self._settle(batch, error)
                telemetry.logger().exception("batch.broke_off", texts=len(batch))
            idle_beats = 0 if batch else idle_beats + 1
            if idle_beats == _IDLE_BEATS:
                give_back_free_memory()

    def _next_batch(self) -> Batch | None:
        """Texts to embed now; empty if none came for a while; None at the end."""
        with self._changed:
            self._beat = time.monotonic()
            if self._stopping:
                return None
            if batch := self._waiting.take(self._budget_for):
                return batch
            self._changed.wait(self._beat_seconds)
            return self._waiting.take(self._budget_for)

    def _budget_for(self, text: WaitingText[EmbeddingJob]) -> int:
        if text.input_type == "query":
            return self._batch_tokens
        # A question that comes while documents go through waits for the end of their pass.
        in_time = text.owner.model.throughput.tokens_in(self._pass_seconds)
        return min(self._batch_tokens, max(_LEAST_BUDGET, in_time))

    def _embed(self, batch: Batch) -> None:
        began = self._beat = time.monotonic()
        for text in batch:
            if not text.owner.started:
                text.owner.started = True
                self._metrics.queue_wait.observe(began - text.owner.queued_at)
        try:
            vectors = batch[0].owner.model.backend.embed([text.owner.texts[text.index] for text in batch])
            for text, vector in zip(batch, vectors, strict=True):
                text.owner.vectors[text.index] = vector
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends these jobs and not the thread
            self._embed_apart(batch, error)
            return
        # Only now: what has failed half-way is done again, and must not count twice.
        for text in batch:
            text.owner.missing -= 1
        self._settle([text for text in batch if not text.owner.missing])
        self._record(batch, time.monotonic() - began)

    def _embed_apart(self, batch: Batch, error: Exception) -> None:
        """Fail the request whose text broke a pass; those that shared it have one of their own."""
        by_job: dict[int, Batch] = {}
        for text in batch:
            by_job.setdefault(id(text.owner), []).append(text)
        telemetry.logger().error("batch.failed", texts=len(batch), requests=len(by_job), exc_info=error)
        if len(by_job) == 1:
            self._settle(batch, error)
            return
        for texts in by_job.values():
            if texts[0].owner.wanted:
                self._embed(texts)

    def _settle(self, batch: Batch, error: Exception | None = None) -> None:
        for job in {id(text.owner): text.owner for text in batch}.values():
            self._loop.call_soon_threadsafe(job.end, error)

    def _record(self, batch: Batch, seconds: float) -> None:
        tokens = sum(text.tokens for text in batch)
        batch[0].owner.model.throughput.record(tokens, seconds)
        padded = rows_for(len(batch)) * width_for(max(text.tokens for text in batch))
        self._metrics.record_batch(len(batch), tokens=tokens, padded=padded, seconds=seconds)
