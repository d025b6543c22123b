"""Text that may be stored: PostgreSQL has no NUL, and half of a surrogate pair is no character."""

from __future__ import annotations

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether every store takes the text as it is."""
    return _UNSTORABLE.search(text) is None


def made_storable(text: str) -> str:
    """The text with a replacement character in the place of each that no store takes."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
