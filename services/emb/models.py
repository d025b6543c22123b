"""The models that are loaded, by alias, and how one takes another's place while requests run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from services.emb.admission import Admission, Throughput
from services.emb.backends.base import EmbeddingBackend
from services.emb.catalog import WantedModel
from services.emb.loading import Load, try_out
from sluice import telemetry
from sluice.errors import NotFound, SluiceError
from sluice.memory import give_back_free_memory


class Model:
    """A model that is loaded, and what waits for it."""

    def __init__(self, wanted: WantedModel, backend: EmbeddingBackend, capacity: int, throughput: Throughput) -> None:
        self.wanted = wanted
        self.backend = backend
        self.throughput = throughput
        self.admission = Admission(capacity, throughput)
        self.requests = 0

    @contextmanager
    def used(self) -> Iterator[None]:
        """Kept while inside, whatever happens to its alias."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1


class Outcome(StrEnum):
    """What became of an alias."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Change:
    """What became of an alias, and the reason if it is not what was wanted."""

    outcome: Outcome
    model: str
    problem: str | None = None


class Models:
    """The loaded models. Belongs to one event loop; models are loaded beside it, one after the other."""

    def __init__(self, load: Load, capacity: int, on_change: Callable[[], None]) -> None:
        self._load = load
        self._capacity = capacity
        self._on_change = on_change
        self._aliases: dict[str, Model] = {}
        self._changing = asyncio.Lock()
        self._loading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self.problems: dict[str, str] = {}
        """Why an alias does not mean what it should, by alias."""

    def by_alias(self) -> dict[str, Model]:
        """The model that each alias means now."""
        return dict(self._aliases)

    def get(self, alias: str) -> Model:
        """The model that an alias means now; `NotFound` names the aliases that there are."""
        model = self._aliases.get(alias)
        if model is None:
            known = ", ".join(map(repr, self._aliases)) or "none yet"
            raise NotFound(f"No model {alias!r}; this service has {known}.", code="model_not_found", param="model")
        return model

    async def become(self, wanted: Mapping[str, WantedModel]) -> dict[str, Change]:
        """Let the aliases mean these models.

        A new model is loaded, tested and measured beside the old one, which serves until then and finishes what it has
        begun. Where that fails, the alias means what it meant, and the change says why.
        """
        async with self._changing:
            changes = {alias: await self._change(alias, model) for alias, model in wanted.items()}
            for alias in self._aliases.keys() - wanted.keys():
                changes[alias] = Change(Outcome.DROPPED, self._aliases.pop(alias).wanted.name)
            self.problems = {alias: each.problem for alias, each in changes.items() if each.problem}
            self._on_change()
            if any(each.outcome in {Outcome.CHANGED, Outcome.DROPPED} for each in changes.values()):
                await asyncio.get_running_loop().run_in_executor(self._loading, _tidy)
            return changes

    def close(self) -> None:
        """Load no more."""
        self._loading.shutdown(wait=False, cancel_futures=True)

    async def _change(self, alias: str, wanted: WantedModel) -> Change:
        now = self._aliases.get(alias)
        if now is not None and now.wanted == wanted:
            return Change(Outcome.UNCHANGED, wanted.name)
        log = telemetry.logger().bind(alias=alias, model=wanted.name)
        try:
            model = await self._loaded(wanted)
        except SluiceError as error:
            log.error("model.load_failed", code=error.code, reason=error.detail)  # noqa: TRY400 - the reason says it all
            return await self._failed(alias, wanted, error.detail)
        except Exception as error:
            log.exception("model.load_failed")
            return await self._failed(alias, wanted, f"It cannot be loaded ({type(error).__name__}); the log says why.")
        # From here on new requests go to the new model; those of the old one hold it until they are answered.
        self._aliases[alias] = model
        log.info("model.ready", model_version=model.backend.version, form=model.backend.form)
        self._on_change()
        return Change(Outcome.CHANGED, wanted.name)

    async def _failed(self, alias: str, wanted: WantedModel, problem: str) -> Change:
        if alias not in self._aliases and wanted.before is not None:
            # Whoever restarts EMB after an activation was refused is not to be without vectors.
            await self._change(alias, wanted.before)
        return Change(Outcome.FAILED, wanted.name, problem)

    async def _loaded(self, wanted: WantedModel) -> Model:
        # Two aliases of one model share it.
        for model in self._aliases.values():
            if model.wanted == wanted:
                return model
        return await asyncio.get_running_loop().run_in_executor(self._loading, self._load_and_try, wanted)

    def _load_and_try(self, wanted: WantedModel) -> Model:
        backend, throughput = self._load(wanted), Throughput()
        try_out(backend, throughput)
        return Model(wanted, backend, self._capacity, throughput)


def _tidy() -> None:
    # An old model is in cycles of its library's making.
    gc.collect()
    give_back_free_memory()
