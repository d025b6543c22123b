"""What the owner thread computes with: `native` has the real ones, tests have fakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from services.llm.backends.base import Sampling
from services.llm.backends.llama_cpp.rows import Row
from services.llm.backends.llama_cpp.seats import Memory


class Context(Memory, Protocol):
    """A loaded model with memory for some sequences."""

    @property
    def sequences(self) -> int:
        """How many answers it has room for."""

    def self_test(self) -> None:
        """Raise what is wrong with it, if anything is."""

    def decode(self, rows: Sequence[Row]) -> int:
        """Compute a batch. 0: done; 1: no room, nothing changed; anything else: failed."""

    def sampler(self, sampling: Sampling, grammar: str | None) -> Any:
        """What chooses the tokens of one answer; has `close()`."""

    def sample(self, sampler: Any, row: int) -> int:
        """The next token after this row of the last batch; `GrammarExhausted` if there is none."""

    def close(self) -> None:
        """Free it."""


class Vocabulary(Protocol):
    """What tokens mean."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for."""

    def ends_answer(self, token: int) -> bool:
        """Whether the model is done."""
