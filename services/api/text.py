"""Text that may be stored: PostgreSQL has no NUL, and half of a surrogate pair is no character."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text; `ValueError` when it holds what no store takes."""
    if _UNSTORABLE.search(text):
        raise ValueError("contains a NUL character or half of a surrogate pair")
    return text


CleanText = Annotated[str, AfterValidator(storable)]
