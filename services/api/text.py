"""Text that clients send, refused when no store takes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from sluice.storable import is_storable


def storable(text: str) -> str:
    """The text; `ValueError` when it holds what no store takes."""
    if not is_storable(text):
        raise ValueError("contains a NUL character or half of a surrogate pair")
    return text


CleanText = Annotated[str, AfterValidator(storable)]
