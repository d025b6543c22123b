"""The model that answers, from its loading to its end, and whoever uses it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.llm.backends.base import CompletionBackend
from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
from sluice import telemetry
from sluice.errors import TemporarilyUnavailable
from sluice.settings import LlmServiceSettings

_DRAINING_RETRY_SECONDS: Final = 5.0
_LOADING_RETRY_SECONDS: Final = 5.0

Load = Callable[[], CompletionBackend]


class State(StrEnum):
    """What the service can do now."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(eq=False)
class ServedModel:
    """A loaded model with a queue of its own, and how many requests use it."""

    backend: CompletionBackend
    scheduler: Scheduler
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)


class ModelHost:
    """Keeps the model that answers. Belongs to one event loop."""

    def __init__(self, load: Load, settings: LlmServiceSettings, metrics: LlmMetrics) -> None:
        """`load` takes its time, and is called in another thread."""
        self._load = load
        self._settings = settings
        self._metrics = metrics
        self._current: ServedModel | None = None
        self.state = State.LOADING
        metrics.waiting.set_function(lambda: self._current.scheduler.waiting if self._current else 0)
        metrics.active.set_function(lambda: self._current.scheduler.active if self._current else 0)
        metrics.watch_backend(lambda: self._current.backend.stats() if self._current else {})

    async def start(self) -> None:
        """Load the model; `SluiceError` says why that cannot be."""
        try:
            self._current = self._served(await asyncio.to_thread(self._load))
        except BaseException:
            self.state = State.FAILED
            raise
        telemetry.logger().info("model.ready", backend=self._current.backend.name)
        if self.state is State.LOADING:
            self.state = State.READY

    @contextmanager
    def using(self) -> Iterator[ServedModel]:
        """The model, which is not taken away while inside; `TemporarilyUnavailable` while there is none."""
        if self.state is State.DRAINING:
            raise TemporarilyUnavailable(
                "The service is shutting down.", code="draining", retry_after=_DRAINING_RETRY_SECONDS
            )
        served = self.current
        served.users += 1
        served.unused.clear()
        try:
            yield served
        finally:
            served.users -= 1
            if not served.users:
                served.unused.set()

    @property
    def current(self) -> ServedModel:
        """The model that answers now; `TemporarilyUnavailable` while there is none."""
        if self._current is None:
            raise TemporarilyUnavailable(
                "The model is being loaded.", code="loading", retry_after=_LOADING_RETRY_SECONDS
            )
        return self._current

    def require_ready(self) -> None:
        """`TemporarilyUnavailable` says why requests cannot be served now."""
        if self.state is State.DRAINING:
            raise TemporarilyUnavailable("The service is shutting down.", code="not_ready")
        if not self.current.backend.responsive:
            raise TemporarilyUnavailable("The model is stuck: it has made no step for too long.", code="not_ready")

    async def drain(self) -> None:
        """Accept nothing new, and return when all that was accepted is answered."""
        self.state = State.DRAINING
        if self._current is not None:
            await self._current.unused.wait()

    async def close(self) -> None:
        """Free the model."""
        if self._current is not None:
            served, self._current = self._current, None
            await served.backend.close()

    def stats(self) -> dict[str, Any]:
        """Facts about this moment."""
        facts: dict[str, Any] = {"state": self.state, "draining": self.state is State.DRAINING}
        if self._current is not None:
            backend = self._current.backend
            facts |= {"backend": backend.name, **self._current.scheduler.stats(), "model": backend.stats()}
        return facts

    def _served(self, backend: CompletionBackend) -> ServedModel:
        served = ServedModel(backend, Scheduler(backend.slots, self._settings, self._metrics))
        served.unused.set()
        return served
