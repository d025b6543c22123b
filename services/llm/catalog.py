"""Which model is to answer, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final, Protocol, cast

from services.llm.candidate import Candidate
from sluice.environment import SettingsError
from sluice.errors import NotFound
from sluice.model_store.manifest import ModelEntry, Version
from sluice.model_store.store import ModelStore
from sluice.settings import LlmServiceSettings, ModelStoreSettings

MANIFEST: Final = "manifest"
_GGUF: Final = "llama_cpp"
_EXTRACTIVE: Final = "extractive"
# Each module has `candidate(settings)`; only the one that is needed is imported.
_MODULES: Final = {
    _EXTRACTIVE: "services.llm.backends.extractive",
    _GGUF: "services.llm.backends.llama_cpp.backend",
    "remote": "services.llm.backends.remote.backend",
}


class Catalog(Protocol):
    """Knows the model that is to answer. May be asked in any thread."""

    def wanted(self) -> Candidate:
        """The model that is to answer now; `SluiceError` if it cannot be had."""

    def before(self) -> Candidate | None:
        """The model that answered before the alias was changed last; `SluiceError` if it cannot be had."""

    def named(self, version: Version) -> Candidate:
        """A certain one; `SluiceError` if it cannot be had."""

    def changed_at(self) -> tuple[int, int]:
        """Another value whenever `wanted` may be another."""


class FixedModel:
    """The model that the settings name."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate

    def wanted(self) -> Candidate:
        """Always the same."""
        return self._candidate

    def before(self) -> Candidate | None:
        """None."""
        return None

    def named(self, version: Version) -> Candidate:
        """There is no other."""
        raise NotFound(
            f"This service has the model of its settings and no models folder, so it cannot load {version}. "
            f"Set SLUICE_LLM_BACKEND={MANIFEST}.",
            code="model_not_found",
        )

    def changed_at(self) -> tuple[int, int]:
        """Never."""
        return 0, 0


class ManifestModels:
    """The model that an alias of the models folder means; the extractive backend while it means none."""

    def __init__(self, store: ModelStore, settings: LlmServiceSettings) -> None:
        self._store = store
        self._settings = settings

    def wanted(self) -> Candidate:
        """What the alias means now."""
        entry = self._store.manifest().active("llm").get(self._settings.model)
        return _candidate(_EXTRACTIVE, self._settings) if entry is None else self._of(entry)

    def before(self) -> Candidate | None:
        """What `:rollback` would go back to, or the extractive backend where nothing was before."""
        manifest = self._store.manifest()
        alias = manifest.aliases.get("llm", {}).get(self._settings.model)
        if alias is None:
            return None
        previous = alias.previous
        return _candidate(_EXTRACTIVE, self._settings) if previous is None else self._of(manifest.entry(previous))

    def named(self, version: Version) -> Candidate:
        """A model of the folder."""
        return self._of(self._store.manifest().entry(version))

    def changed_at(self) -> tuple[int, int]:
        """When the manifest was written."""
        return self._store.changed_at()

    def _of(self, entry: ModelEntry) -> Candidate:
        if entry.type != "llm" or entry.backend != _GGUF:
            raise NotFound(
                f"{entry.key} is of type {entry.type} for {entry.backend}; LLM loads models of type llm for {_GGUF}.",
                code="model_not_found",
            )
        file = self._store.verified(entry)
        settings = self._settings.model_copy(update={"model_path": file})
        found = _candidate(_GGUF, settings)
        return Candidate(str(entry.key), found.load, found.needed_bytes)


def catalog(settings: LlmServiceSettings) -> Catalog:
    """The catalog that the settings ask for; `SettingsError` says which variable is wrong."""
    if settings.backend == MANIFEST:
        return ManifestModels(ModelStore(ModelStoreSettings.from_environment().folder), settings)
    if settings.backend not in _MODULES:
        known = ", ".join([*_MODULES, MANIFEST])
        raise SettingsError(f"SLUICE_LLM_BACKEND is {settings.backend!r}; it can be {known}.")
    return FixedModel(_candidate(settings.backend, settings))


def _candidate(backend: str, settings: LlmServiceSettings) -> Candidate:
    make = cast("Callable[[LlmServiceSettings], Candidate]", import_module(_MODULES[backend]).candidate)
    return make(settings)
