"""A model that could answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.llm.backends.base import CompletionBackend


def _nothing() -> int:
    return 0


@dataclass(frozen=True)
class Candidate:
    """What is known of a model before it is loaded."""

    name: str
    """Shown in every answer."""
    load: Callable[[], CompletionBackend]
    """Takes its time. Raises `SluiceError`."""
    needed_bytes: Callable[[], int] = _nothing
    """Memory that it takes when it is loaded, as far as that can be told from its files."""
