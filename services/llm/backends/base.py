"""What the service needs of whatever writes the answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sluice.wire.completions import ChatMessage, FinishReason, Passage, ResponseFormat, Usage


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen among the likely ones. Penalties count what was written, not the prompt."""

    temperature: float = 0.2
    """Low: answers from documents are to be the likely ones. 0: always the most likely token."""
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None

    @property
    def has_penalties(self) -> bool:
        """Whether what was written changes what comes next."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repeat_penalty != 1.0)


@dataclass(frozen=True)
class Prompt:
    """What to answer: a conversation, or one text to go on from, and the passages to answer from."""

    messages: Sequence[ChatMessage]
    passages: Sequence[Passage] = ()
    raw: bool = False
    """The one message is not a turn of a conversation: the model continues its text."""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None

    def texts(self) -> list[str]:
        """All that the model reads."""
        return [*(m.content for m in self.messages), *(text for p in self.passages for text in (p.title, p.text))]


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer: whole characters, and how many tokens they took."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an answer besides its text; None: nothing new."""

    cached_tokens: int | None = None
    """So many tokens of the prompt were computed for an earlier request."""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    """As somebody else counted it."""


class PreparedAnswer(Protocol):
    """A request that was found to be in order, and can be answered as soon as there is a slot."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens to read."""

    @property
    def max_tokens(self) -> int | None:
        """Tokens to write at most, if there is a limit."""

    def pieces(self) -> AsyncGenerator[Piece | Facts, None]:
        """The answer, to its natural end or its limit. Closing the generator frees what it holds within one step."""


class CompletionBackend(Protocol):
    """Writes answers. All of it is called on the event loop, which it must not block."""

    @property
    def name(self) -> str:
        """What answers, in every response: clients must see it."""

    @property
    def slots(self) -> int:
        """How many answers may be written at the same time."""

    @property
    def context_tokens(self) -> int:
        """Tokens of a prompt and its answer together at most."""

    @property
    def responsive(self) -> bool:
        """Whether what computes the answers has shown itself lately."""

    async def tokens(self, text: str) -> list[str]:
        """The text in this backend's tokens."""

    async def prepare(self, prompt: Prompt) -> PreparedAnswer:
        """Read the request; `Malformed` says what this backend cannot do, or that the prompt is too long."""

    def stats(self) -> dict[str, float]:
        """Figures of this moment, by name."""

    async def close(self) -> None:
        """Give back memory and threads. Nothing is being answered any more."""


@runtime_checkable
class NumberedTokens(Protocol):
    """A backend with a vocabulary of numbered tokens."""

    async def numbered_tokens(self, text: str) -> list[tuple[int, str]]:
        """The text in this backend's tokens, each with its number."""
