"""The models folder as the API has it: perhaps not at all, for it belongs to a host, and the API may run on another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.api.dependencies import Resources
from sluice.errors import Conflict
from sluice.model_store.files import UnsafePath
from sluice.model_store.manifest import ManifestUnreadable
from sluice.model_store.store import ModelStore, NotWhatWasAdded

_UNUSABLE: Final = "models_folder_unusable"


@contextmanager
def models_folder(it: Resources) -> Iterator[ModelStore]:
    """The models folder; `Conflict` says why it, or what is in it, cannot be used."""
    folder = it.models.folder.absolute()
    if not folder.is_dir():
        raise Conflict(
            f"The API has no models folder at {folder}. Mount it into the API (SLUICE_MODELS_FOLDER), or run "
            "`sluice models` on the host that has it.",
            code=_UNUSABLE,
        )
    try:
        # A new one for each request: what it verifies, it reads.
        yield ModelStore(folder)
    except OSError as error:
        raise Conflict(f"The API cannot use {error.filename or folder}: {error.strerror}.", code=_UNUSABLE) from error
    except (ManifestUnreadable, NotWhatWasAdded, UnsafePath) as error:
        raise Conflict(error.detail, code=error.code) from error
