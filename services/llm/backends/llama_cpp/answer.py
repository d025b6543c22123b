"""One answer while its prompt is read and it is written, as the owner thread knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.llm.backends.base import Facts, Piece, Sampling
from services.llm.backends.llama_cpp.stream import Item, Stream
from services.llm.backends.llama_cpp.utf8 import IncrementalText
from sluice.wire.completions import FinishReason


@dataclass(eq=False)
class Order:
    """What the event loop asks of the owner thread."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    grammar: str | None
    stream: Stream
    canceled: bool = field(default=False)
    """Set by the event loop when nobody wants the answer any more."""


class Answer:
    """An order that has a sequence."""

    def __init__(self, order: Order, sequence: int, reused: int, sampler: Any) -> None:
        self.order = order
        self.sequence = sequence
        self.position = reused
        """Tokens of the sequence that are computed."""
        self.sampler = sampler
        self.next_token: int | None = None
        """What was chosen last and is to be computed next, once the prompt is read."""
        self.written = 0
        self.ended = False
        self._text = IncrementalText()

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are to be computed yet."""
        return len(self.order.prompt) - self.position if self.next_token is None else 0

    @property
    def paused(self) -> bool:
        """Whether its reader must catch up before it goes on."""
        return self.order.stream.full

    def prompt_part(self, count: int) -> Sequence[int]:
        """The next tokens of the prompt."""
        return self.order.prompt[self.position : self.position + count]

    def write(self, token: int, piece: bytes) -> list[Item]:
        """Go on with this token; what the reader is told, the end included if the limit is reached."""
        self.written += 1
        self.next_token = token
        told: list[Item] = [Piece(self._text.feed(piece), tokens=1)]
        return told + self.end("length") if self.written >= self.order.max_tokens else told

    def end(self, reason: FinishReason) -> list[Item]:
        """Say that the answer is over; what the reader is told."""
        self.ended = True
        rest = self._text.end()
        return [*([Piece(rest, tokens=0)] if rest else []), Facts(finish_reason=reason), None]
