"""What stands between HTTP and the models: admission, tokenizing, a deadline, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from services.emb.admission import Reservation, estimated_tokens
from services.emb.backends.base import EmbeddingBackend, Vectors
from services.emb.following import Following, Wanted
from services.emb.loading import Load
from services.emb.metrics import EmbMetrics
from services.emb.model_thread import EmbeddingJob, ModelThread
from services.emb.models import Change, Model, Models
from sluice import telemetry
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.errors import TemporarilyUnavailable
from sluice.settings import EmbServiceSettings
from sluice.threads import usable_threads
from sluice.watchdog import GIVE_UP_SECONDS, until_stuck_for_good
from sluice.wire.embeddings import InputType

_RETRY_SECONDS: Final = 5.0
# A long list is tokenized in pieces, so that lists take turns and one that nobody waits for is left.
_PIECE_TEXTS: Final = 256


class State(StrEnum):
    """What the service can do right now."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


_WHY_NOT = {
    State.LOADING: "The model is being loaded.",
    State.DRAINING: "The service is shutting down.",
    State.FAILED: "The model could not be loaded, or is stuck for good; the log says why.",
}


@dataclass(frozen=True)
class Embedded:
    """The vectors of one request, (texts, dimension), and what was read to make them."""

    vectors: Vectors
    tokens: int
    truncated: list[int]


class EmbeddingQueue:
    """Texts of many requests in, vectors out. Belongs to one event loop."""

    def __init__(
        self,
        load: Load,
        wanted: Wanted,
        settings: EmbServiceSettings,
        metrics: EmbMetrics,
        *,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        """`load` runs on a thread of its own, so health checks are answered while a model is read.

        A model that is still stuck after `give_up_seconds` will not answer any more.
        """
        self._alias = settings.alias
        self._threads = settings.threads or usable_threads()
        self._queue_seconds = settings.queue_seconds
        self._give_up_seconds = give_up_seconds
        self._metrics = metrics
        self.models = Models(load, settings.queue_tokens, on_change=self._note_models)
        self._following = Following(wanted, self.models, settings.models_poll_seconds)
        self._thread = ModelThread(
            settings.batch_tokens, settings.pass_milliseconds / 1000, settings.stuck_seconds, metrics
        )
        # A question is not to wait until a list of thousands is tokenized.
        self._tokenizing: dict[InputType, ThreadPoolExecutor] = {
            "query": ThreadPoolExecutor(max_workers=1, thread_name_prefix="query-tokenizer"),
            "document": ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer"),
        }
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.state = State.LOADING
        metrics.queued_tokens.set_function(self._queued_tokens)

    def start(self, on_failure: Callable[[], None]) -> None:
        """Begin to load the models; `on_failure` is called if the default one cannot be loaded, or one is stuck."""
        self._thread.start()
        loop = asyncio.get_running_loop()
        self._beside = [loop.create_task(self._start(on_failure)), loop.create_task(self._watch(on_failure))]

    async def _start(self, on_failure: Callable[[], None]) -> None:
        try:
            await self._following.begin()
        except Exception:  # noqa: BLE001 - whatever it is, the process must say so and end
            telemetry.logger().exception("models.load_failed")
        if self._alias in self.models.by_alias():
            if self.state is State.LOADING:
                self.state = State.READY
            return
        self.state = State.FAILED
        on_failure()

    async def _watch(self, on_failure: Callable[[], None]) -> None:
        await until_stuck_for_good(
            lambda: self.state is not State.READY or self._thread.responsive, self._give_up_seconds
        )
        telemetry.logger().error("model.stuck", seconds=self._give_up_seconds)
        self.state = State.FAILED
        on_failure()

    async def drain(self) -> None:
        """Accept nothing new, and return when all that was accepted is answered."""
        self.state = State.DRAINING
        await self._idle.wait()

    def stop(self) -> None:
        """Let the threads end."""
        for task in self._beside:
            task.cancel()
        self._following.end()
        self.models.close()
        for pool in self._tokenizing.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._thread.stop()

    async def follow(self) -> dict[str, Change]:
        """Load now what the models folder says, and return what became of each alias."""
        return await self._following.now()

    def model(self, alias: str) -> Model:
        """The model behind an alias: `NotFound` without one, `TemporarilyUnavailable` before the first is loaded."""
        if not self.models.by_alias():
            raise self._not_now()
        return self.models.get(alias)

    def why_not_ready(self) -> str | None:
        """Why no request should be sent here now, or None."""
        if self.state is not State.READY:
            return _WHY_NOT[self.state]
        return None if self._thread.responsive else "The model's thread is stuck."

    def stats(self) -> dict[str, Any]:
        """Facts about this moment."""
        models = self.models.by_alias()
        return {
            "state": self.state.value,
            "requests": self._requests,
            "queued_tokens": self._queued_tokens(),
            "threads": self._threads,
            "seconds_since_heartbeat": round(self._thread.seconds_since_beat, 3),
            "models": {alias: _facts(model) for alias, model in models.items()},
            "problems": dict(self.models.problems),
        }

    async def embed(self, model: Model, texts: list[str], input_type: InputType) -> Embedded:
        """The vectors of these texts, in their order.

        Cancel this to give up: what has not begun is dropped. Raises `TooManyRequests` when the queue is full,
        `TooLarge` when the request can never fit, `TemporarilyUnavailable` when it loads, drains or waited too long.
        """
        if self.state is not State.READY:
            raise self._not_now()
        about = estimated_tokens(texts, model.backend.max_tokens)
        with self._accepted(), model.used(), model.admission.reserve(about) as reserved:
            job = EmbeddingJob(model, len(texts), input_type)
            deadline = asyncio.get_running_loop().call_later(self._queue_seconds, self._expire, job)
            try:
                await self._submit(job, texts, reserved)
                await job.finished
            finally:
                deadline.cancel()
                job.wanted = False
                job.finished.cancel()
            self._metrics.tokens.labels(input_type).inc(reserved.tokens)
            truncated = [index for index, text in enumerate(job.texts) if text.truncated]
            return Embedded(job.vectors, reserved.tokens, truncated)

    async def _submit(self, job: EmbeddingJob, texts: list[str], reserved: Reservation) -> None:
        loop, backend = asyncio.get_running_loop(), job.model.backend
        pieces, tokenized = iter(texts), list[TokenizedText]()
        while (piece := list(islice(pieces, _PIECE_TEXTS))) and job.wanted:
            tokenizing = self._tokenizing[job.input_type]
            tokenized += await loop.run_in_executor(tokenizing, _tokenized, backend, piece, job)
        if job.wanted:
            # All or nothing: no text goes through the model before there is room for the whole request.
            reserved.resize(sum(len(text.ids) for text in tokenized))
            self._thread.submit(job, tokenized)

    def _expire(self, job: EmbeddingJob) -> None:
        if job.started:
            return
        model = job.model
        job.end(
            TemporarilyUnavailable(
                f"The request waited {self._queue_seconds:g} seconds and was dropped.",
                code="queue_deadline",
                retry_after=model.throughput.seconds_for(model.admission.tokens),
            )
        )

    def _not_now(self) -> TemporarilyUnavailable:
        reason = self.why_not_ready() or "The model is not loaded."
        return TemporarilyUnavailable(reason, code=self.state.value, retry_after=_RETRY_SECONDS)

    def _queued_tokens(self) -> int:
        return sum(model.admission.tokens for model in set(self.models.by_alias().values()))

    def _note_models(self) -> None:
        self._metrics.show_models({alias: _facts(model) for alias, model in self.models.by_alias().items()})

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


def _tokenized(backend: EmbeddingBackend, texts: Sequence[str], job: EmbeddingJob) -> list[TokenizedText]:
    # Nobody may be waiting for it any more: then the list behind it is worth more.
    return backend.tokenize(texts, job.input_type) if job.wanted else []


def _facts(model: Model) -> dict[str, Any]:
    return {
        "model": model.wanted.name,
        "version": model.backend.version,
        "backend": model.wanted.backend,
        "form": model.backend.form,
        "queued_tokens": model.admission.tokens,
        "queue_capacity_tokens": model.admission.capacity,
        "tokens_per_second": round(model.throughput.tokens_per_second, 1),
    }
