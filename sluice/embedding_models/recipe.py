"""What a conversion will make is known before it is made: the version of its vectors. Light, unlike `conversion`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from sluice.embedding_models.calibration_texts import Texts
from sluice.model_store.files import digest

RECIPE: Final = 1
"""Another number means other vectors: raise it when anything in `conversion` changes them."""

_DIGITS: Final = 12


def vectors_of(folder: Path, texts: Texts) -> str:
    """What a conversion writes as `vectors`: the same for the same source, texts and recipe."""
    made_of = (digest(folder), texts.digest, str(RECIPE))
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:_DIGITS]
