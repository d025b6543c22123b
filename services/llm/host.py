"""The model that answers, from its loading to its end, and its exchange while requests run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.llm.backends.base import CompletionBackend
from services.llm.candidate import Candidate
from services.llm.catalog import Catalog
from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
from sluice import telemetry
from sluice.errors import Conflict, NotFound, SluiceError, TemporarilyUnavailable
from sluice.memory import free_memory, give_back_free_memory
from sluice.model_store.manifest import Version
from sluice.settings import LlmServiceSettings
from sluice.watchdog import GIVE_UP_SECONDS, until_stuck_for_good

_DRAINING_RETRY_SECONDS: Final = 5.0
_LOADING_RETRY_SECONDS: Final = 5.0
_MEGABYTE: Final = 1024**2


class State(StrEnum):
    """What the service can do now."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


@dataclass(eq=False)
class ServedModel:
    """A loaded model with a queue of its own, and how many requests use it."""

    name: str
    backend: CompletionBackend
    scheduler: Scheduler
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)


class ModelHost:
    """Keeps the model that answers. Belongs to one event loop."""

    def __init__(
        self,
        catalog: Catalog,
        settings: LlmServiceSettings,
        metrics: LlmMetrics,
        *,
        available: Callable[[], int | None] = free_memory,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        """A model that has not been responsive for `give_up_seconds` will not be any more."""
        self._catalog = catalog
        self._settings = settings
        self._metrics = metrics
        self._available = available
        self._give_up_seconds = give_up_seconds
        self._current: ServedModel | None = None
        self._previous: str | None = None
        self._refused: str | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._exchange = asyncio.Lock()
        self.state = State.LOADING
        metrics.waiting.set_function(lambda: self._current.scheduler.waiting if self._current else 0)
        metrics.active.set_function(lambda: self._current.scheduler.active if self._current else 0)
        metrics.watch_backend(lambda: self._current.backend.stats() if self._current else {})

    async def start(self) -> None:
        """Load the model, or where that cannot be, the one before it; `SluiceError` says why neither can be."""
        try:
            async with self._exchange:
                self._seen = self._catalog.changed_at()
                self._current = await self._first()
        except BaseException:
            self.state = State.FAILED
            raise
        telemetry.logger().info("model.ready", model=self._current.name)
        if self.state is State.LOADING:
            self.state = State.READY

    async def activate(self, wanted: Version | None = None) -> ServedModel:
        """Have another model answer: this one, or the one that the alias means now.

        It is loaded beside the current one, which answers until the other has passed its self-test, and is freed when
        its last answer is complete. `Conflict` or `NotFound` says why that cannot be; then nothing has changed.
        """
        if self._exchange.locked():
            raise Conflict("Another model is being loaded. Try again when it is.", code="activation_running")
        async with self._exchange:
            old = self.current
            try:
                candidate = await asyncio.to_thread(self._find, wanted)
                if candidate.name == old.name:
                    self._refused = None
                    return old
                await asyncio.to_thread(self._require_memory, candidate)
                new = await self._loaded(candidate)
            except (Conflict, NotFound):
                raise
            except SluiceError as error:
                raise Conflict(f"{old.name} goes on. {error.detail}", code=error.code) from error
            self._current, self._previous, self._refused = new, old.name, None
        telemetry.logger().info("model.activated", model=new.name, previous=old.name)
        leaving = asyncio.create_task(self._free_when_unused(old))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return new

    async def follow(self) -> None:
        """Activate what the alias means whenever that has changed, for ever."""
        while True:
            await asyncio.sleep(self._settings.models_poll_seconds)
            # While another is being loaded, this change keeps: it would only be refused for that.
            if self.state is not State.READY or self._exchange.locked():
                continue
            if (now := self._catalog.changed_at()) == self._seen:
                continue
            # Not tried again until the manifest changes again: it would fail again.
            self._seen, self._refused = now, None
            try:
                await self.activate()
            except SluiceError as error:
                self._refused = error.detail
                telemetry.logger().error("model.refused", detail=error.detail, code=error.code)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next change must be followed
                self._refused = f"The model could not be loaded ({type(error).__name__}); the log has the details."
                telemetry.logger().exception("model.refused")

    async def watch(self, on_stuck: Callable[[], None]) -> None:
        """Call `on_stuck` once the model has been stuck for too long: only a new process helps then."""
        await until_stuck_for_good(
            lambda: self.state is not State.READY or self.current.backend.responsive, self._give_up_seconds
        )
        telemetry.logger().error("model.stuck", model=self.current.name, seconds=self._give_up_seconds)
        self.state = State.FAILED
        on_stuck()

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
        """Accept nothing new, and return when all that was accepted is answered, by whatever model."""
        self.state = State.DRAINING
        if self._current is not None:
            await self._current.unused.wait()
        await asyncio.gather(*self._leaving)

    async def close(self) -> None:
        """Free the models."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        if self._current is not None:
            served, self._current = self._current, None
            await served.backend.close()

    def stats(self) -> dict[str, Any]:
        """Facts about this moment."""
        facts: dict[str, Any] = {"state": self.state, "draining": self.state is State.DRAINING}
        if self._current is not None:
            backend = self._current.backend
            facts |= {
                "name": self._current.name,
                "previous": self._previous,
                "refused": self._refused,
                "leaving": len(self._leaving),
                "backend": backend.name,
                **self._current.scheduler.stats(),
                "model": backend.stats(),
            }
        return facts

    def _find(self, wanted: Version | None) -> Candidate:
        return self._catalog.wanted() if wanted is None else self._catalog.named(wanted)

    def _require_memory(self, candidate: Candidate) -> None:
        needed, available = candidate.needed_bytes(), self._available()
        if available is not None and needed > available:
            raise Conflict(
                f"{candidate.name} needs about {needed // _MEGABYTE} MB beside the model that answers now, and "
                f"{available // _MEGABYTE} MB are free. Give the service more memory, lower SLUICE_LLM_CONTEXT_TOKENS "
                "or SLUICE_LLM_SEQUENCES, or restart it with the other model.",
                code="not_enough_memory",
            )

    async def _first(self) -> ServedModel:
        try:
            return await self._loaded(await asyncio.to_thread(self._catalog.wanted))
        except SluiceError as error:
            before = await asyncio.to_thread(self._catalog.before)
            if before is None:
                raise
            # Whoever restarts LLM after an activation was refused is not to be without answers.
            telemetry.logger().error("model.refused", detail=error.detail, code=error.code, instead=before.name)
            self._refused = error.detail
        return await self._loaded(before)

    async def _loaded(self, candidate: Candidate) -> ServedModel:
        backend = await asyncio.to_thread(candidate.load)
        served = ServedModel(candidate.name, backend, Scheduler(backend.slots, self._settings, self._metrics))
        served.unused.set()
        return served

    async def _free_when_unused(self, served: ServedModel) -> None:
        try:
            await served.unused.wait()
        finally:
            await served.backend.close()
        await asyncio.to_thread(give_back_free_memory)
        telemetry.logger().info("model.freed", model=served.name)
