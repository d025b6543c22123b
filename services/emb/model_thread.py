"""The one thread that owns the model: it loads it, and embeds batches of whatever requests wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from services.emb.admission import Throughput
from services.emb.backends.base import EmbeddingBackend, TokenizedText, Vectors
from services.emb.batching import WaitingText, WaitingTexts
from services.emb.memory import give_back_free_memory
from services.emb.metrics import EmbMetrics
from sluice import telemetry
from sluice.wire.embeddings import InputType

# The thread looks up this often when nothing arrives; a batch takes well under a second.
_BEAT_SECONDS = 1.0
_FRESH_BEAT_SECONDS = 10.0
# Bulk work has pauses of a second or two; memory is given back when it is really over.
_IDLE_BEATS = 10


class EmbeddingJob:
    """The texts of one request, from the queue to the last vector."""

    def __init__(self, texts: Sequence[TokenizedText], input_type: InputType, dimension: int) -> None:
        self.texts = texts
        self.input_type = input_type
        self.vectors: Vectors = np.empty((len(texts), dimension), dtype=np.float32)
        self.missing = len(texts)
        self.queued_at = time.monotonic()
        self.started = False
        self.wanted = True
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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

    def __init__(
        self, load: Callable[[], EmbeddingBackend], batch_tokens: int, throughput: Throughput, metrics: EmbMetrics
    ) -> None:
        self._load = load
        self._batch_tokens = batch_tokens
        self._throughput = throughput
        self._metrics = metrics
        self._waiting: WaitingTexts[EmbeddingJob] = WaitingTexts()
        self._changed = threading.Condition()
        self._stopping = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self, on_ready: Callable[[EmbeddingBackend], None], on_failure: Callable[[], None]) -> None:
        """Begin to load the model; one of the two is then called on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._thread.start()

    def stop(self) -> None:
        """End after the current batch."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=_FRESH_BEAT_SECONDS)

    def submit(self, job: EmbeddingJob) -> None:
        """Let the texts of a job wait for their batches."""
        waiting = [WaitingText(job, i, len(text.ids), job.input_type) for i, text in enumerate(job.texts)]
        with self._changed:
            self._waiting.add(waiting, now=job.queued_at)
            self._changed.notify()

    @property
    def seconds_since_beat(self) -> float:
        """How long ago the thread last came round for a batch."""
        return time.monotonic() - self._beat

    @property
    def responsive(self) -> bool:
        """Whether the thread lives and has shown itself lately."""
        return self._thread.is_alive() and self.seconds_since_beat < _FRESH_BEAT_SECONDS

    def _run(self) -> None:
        try:
            backend = self._load()
            # The first pass is slower than the rest; no caller should wait for it.
            backend.embed(backend.tokenize(["warm-up"], "document"))
        except Exception:  # noqa: BLE001 - whatever it is, the process must say so and end
            telemetry.logger().exception("model.load_failed")
            self._loop.call_soon_threadsafe(self._on_failure)
            return
        telemetry.logger().info("model.ready", model_version=backend.version, dimension=backend.dimension)
        self._beat = time.monotonic()
        self._loop.call_soon_threadsafe(self._on_ready, backend)
        idle_beats = 0
        while (batch := self._next_batch()) is not None:
            if batch:
                self._embed(backend, batch)
            idle_beats = 0 if batch else idle_beats + 1
            if idle_beats == _IDLE_BEATS:
                give_back_free_memory()

    def _next_batch(self) -> Batch | None:
        """Texts to embed now; empty if none came for a while; None at the end."""
        with self._changed:
            self._beat = time.monotonic()
            if self._stopping:
                return None
            if batch := self._waiting.take(self._batch_tokens):
                return batch
            self._changed.wait(_BEAT_SECONDS)
            return self._waiting.take(self._batch_tokens)

    def _embed(self, backend: EmbeddingBackend, batch: Batch) -> None:
        began = time.monotonic()
        for text in batch:
            if not text.owner.started:
                text.owner.started = True
                self._metrics.queue_wait.observe(began - text.owner.queued_at)
        try:
            vectors = backend.embed([text.owner.texts[text.index] for text in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends these jobs and not the thread
            self._settle(batch, error)
            return
        self._record(batch, time.monotonic() - began)
        for text, vector in zip(batch, vectors, strict=True):
            text.owner.vectors[text.index] = vector
            text.owner.missing -= 1
        self._settle([text for text in batch if not text.owner.missing])

    def _settle(self, batch: Batch, error: Exception | None = None) -> None:
        for job in {id(text.owner): text.owner for text in batch}.values():
            self._loop.call_soon_threadsafe(job.end, error)

    def _record(self, batch: Batch, seconds: float) -> None:
        tokens = sum(text.tokens for text in batch)
        self._throughput.record(tokens, seconds)
        padded = len(batch) * max(text.tokens for text in batch)
        self._metrics.record_batch(len(batch), tokens=tokens, padded=padded, seconds=seconds)
