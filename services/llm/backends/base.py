"""What the service needs of whatever writes the answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluice.wire.completions import ChatMessage, Passage


@dataclass(frozen=True)
class Prompt:
    """What to answer: a conversation (a plain completion is one user message) and the passages to answer from."""

    messages: Sequence[ChatMessage]
    passages: Sequence[Passage] = ()
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def texts(self) -> list[str]:
        """All that the model reads."""
        return [*(m.content for m in self.messages), *(text for p in self.passages for text in (p.title, p.text))]


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer: whole characters, and how many tokens they took."""

    text: str
    tokens: int


class CompletionBackend(Protocol):
    """Writes answers. All of it is called on the event loop, which it must not block."""

    @property
    def name(self) -> str:
        """What answers, in every response: clients must see it."""

    @property
    def slots(self) -> int:
        """How many answers may be written at the same time."""

    @property
    def responsive(self) -> bool:
        """Whether what computes the answers has shown itself lately."""

    def tokens(self, text: str) -> list[str]:
        """The text in this backend's tokens."""

    def generate(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """The answer in pieces, to its natural end. Closing the generator frees what it holds within one step."""
