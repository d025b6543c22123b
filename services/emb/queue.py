"""What stands between HTTP and the model: admission, tokenizing, a deadline, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from services.emb.admission import Admission, Throughput, estimated_tokens
from services.emb.backends.base import EmbeddingBackend, Vectors
from services.emb.metrics import EmbMetrics
from services.emb.model_thread import EmbeddingJob, ModelThread
from sluice.errors import TemporarilyUnavailable
from sluice.settings import EmbServiceSettings
from sluice.wire.embeddings import InputType

_RETRY_SECONDS = 5.0


class State(StrEnum):
    """What the service can do right now."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_WHY_NOT = {
    State.LOADING: "The model is being loaded.",
    State.DRAINING: "The service is shutting down.",
    State.FAILED: "The model could not be loaded; the log says why.",
}


@dataclass(frozen=True)
class Embedded:
    """The vectors of one request, (texts, dimension), and what was read to make them."""

    vectors: Vectors
    tokens: int
    truncated: list[int]


class EmbeddingQueue:
    """Texts of many requests in, vectors out. Belongs to one event loop."""

    def __init__(self, load: Callable[[], EmbeddingBackend], settings: EmbServiceSettings, metrics: EmbMetrics) -> None:
        """`load` runs on the model's own thread, so health checks are answered while the model is read."""
        self._queue_seconds = settings.queue_seconds
        self._metrics = metrics
        self._throughput = Throughput()
        self._admission = Admission(settings.queue_tokens, self._throughput)
        self._thread = ModelThread(load, settings.batch_tokens, self._throughput, metrics)
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer")
        self._backend: EmbeddingBackend | None = None
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.state = State.LOADING
        metrics.queued_tokens.set_function(lambda: self._admission.tokens)

    def start(self, on_failure: Callable[[], None]) -> None:
        """Begin to load the model; `on_failure` is called if that cannot be done."""

        def failed() -> None:
            self.state = State.FAILED
            on_failure()

        self._thread.start(self._become_ready, failed)

    def _become_ready(self, backend: EmbeddingBackend) -> None:
        self._backend = backend
        if self.state is State.LOADING:
            self.state = State.READY

    async def drain(self) -> None:
        """Accept nothing new, and return when all that was accepted is answered."""
        self.state = State.DRAINING
        await self._idle.wait()

    def stop(self) -> None:
        """Let the model's thread end."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        self._thread.stop()

    def backend(self) -> EmbeddingBackend:
        """The loaded model, or `TemporarilyUnavailable`."""
        if self._backend is None:
            raise self._not_now()
        return self._backend

    def why_not_ready(self) -> str | None:
        """Why no request should be sent here now, or None."""
        if self.state is not State.READY:
            return _WHY_NOT[self.state]
        return None if self._thread.responsive else "The model's thread is stuck."

    def stats(self) -> dict[str, Any]:
        """Facts about this moment."""
        return {
            "state": self.state.value,
            "requests": self._requests,
            "queued_tokens": self._admission.tokens,
            "queue_capacity_tokens": self._admission.capacity,
            "tokens_per_second": round(self._throughput.tokens_per_second, 1),
            "seconds_since_heartbeat": round(self._thread.seconds_since_beat, 3),
        }

    async def embed(self, texts: list[str], input_type: InputType) -> Embedded:
        """The vectors of these texts, in their order.

        Cancel this to give up: what has not begun is dropped. Raises `TooManyRequests` when the queue is full,
        `TooLarge` when the request can never fit, `TemporarilyUnavailable` when it loads, drains or waited too long.
        """
        backend = self.backend()
        if self.state is not State.READY:
            raise self._not_now()
        with self._accepted(), self._admission.reserve(estimated_tokens(texts)) as reserved:
            loop = asyncio.get_running_loop()
            tokenized = await loop.run_in_executor(self._tokenizing, backend.tokenize, texts, input_type)
            reserved.resize(sum(len(text.ids) for text in tokenized))
            job = EmbeddingJob(tokenized, input_type, backend.dimension)
            await self._until_finished(job)
            self._metrics.tokens.labels(input_type).inc(reserved.tokens)
            truncated = [index for index, text in enumerate(tokenized) if text.truncated]
            return Embedded(job.vectors, reserved.tokens, truncated)

    async def _until_finished(self, job: EmbeddingJob) -> None:
        deadline = asyncio.get_running_loop().call_later(self._queue_seconds, self._expire, job)
        self._thread.submit(job)
        try:
            await job.finished
        finally:
            deadline.cancel()
            job.wanted = False

    def _expire(self, job: EmbeddingJob) -> None:
        if job.started:
            return
        job.end(
            TemporarilyUnavailable(
                f"The request waited {self._queue_seconds:g} seconds and was dropped.",
                code="queue_deadline",
                retry_after=self._throughput.seconds_for(self._admission.tokens),
            )
        )

    def _not_now(self) -> TemporarilyUnavailable:
        reason = self.why_not_ready() or "The model is not loaded."
        return TemporarilyUnavailable(reason, code=self.state.value, retry_after=_RETRY_SECONDS)

    @contextmanager
    def _accepted(self) -> Iterator[None]:
        self._requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()
