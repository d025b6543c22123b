"""Which texts go through the model together: oldest first, nearest lengths beside it, within a budget of tokens."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

from sluice.wire.embeddings import InputType

# A document counts as this much younger than a query, so a question overtakes bulk work, but not for ever.
_DOCUMENT_PATIENCE_SECONDS = 2.0
# Below this length padding costs less than a pass of its own.
_SHORT_TOKENS = 32


class Owner(Protocol):
    """Who waits for a text."""

    @property
    def wanted(self) -> bool:
        """False once nobody waits any more: the client is gone, or its deadline has passed."""


OwnerT = TypeVar("OwnerT", bound=Owner)


@dataclass(slots=True)
class WaitingText(Generic[OwnerT]):
    """A text that waits for a place in a batch."""

    owner: OwnerT
    index: int
    tokens: int
    input_type: InputType
    taken: bool = field(default=False, init=False)

    @property
    def waits(self) -> bool:
        """Whether it still needs a place."""
        return not self.taken and self.owner.wanted


class WaitingTexts(Generic[OwnerT]):
    """The texts that wait, and the rule by which they leave in batches. Not thread-safe."""

    def __init__(self) -> None:
        self._by_age: list[tuple[float, int, int, WaitingText[OwnerT]]] = []
        self._by_length: dict[InputType, dict[int, deque[WaitingText[OwnerT]]]] = {"query": {}, "document": {}}
        self._arrivals = count()

    def add(self, texts: Iterable[WaitingText[OwnerT]], *, now: float) -> None:
        """Let the texts of one request wait."""
        for text in texts:
            due = now if text.input_type == "query" else now + _DOCUMENT_PATIENCE_SECONDS
            # Longest first within a request: its batches then have almost equal lengths.
            heapq.heappush(self._by_age, (due, -text.tokens, next(self._arrivals), text))
            self._by_length[text.input_type].setdefault(text.tokens, deque()).append(text)

    def take(self, budget: int) -> list[WaitingText[OwnerT]]:
        """The next batch, empty if nothing waits.

        Its longest text times its size is at most `budget` tokens, unless it is a single text that is longer.
        """
        oldest = self._pop_oldest()
        if oldest is None:
            return []
        lane = self._by_length[oldest.input_type]
        batch, longest = [oldest], oldest.tokens
        for length in sorted(lane, key=lambda length: abs(length - oldest.tokens)):
            padded = max(longest, length)
            room = budget // padded - len(batch)
            if room > 0 and _belong_together(length, padded, oldest.tokens):
                mates = list(self._pop_from(lane, length, room))
                batch += mates
                longest = padded if mates else longest
        return batch

    def _pop_oldest(self) -> WaitingText[OwnerT] | None:
        while self._by_age:
            *_, text = heapq.heappop(self._by_age)
            if text.waits:
                text.taken = True
                return text
        # Nothing waits, so all that is left in the lanes is gone or taken.
        for lane in self._by_length.values():
            lane.clear()
        return None

    @staticmethod
    def _pop_from(lane: dict[int, deque[WaitingText[OwnerT]]], length: int, room: int) -> Iterator[WaitingText[OwnerT]]:
        same_length = lane[length]
        while same_length and room:
            text = same_length.popleft()
            if text.waits:
                text.taken = True
                room -= 1
                yield text
        if not same_length:
            del lane[length]


def _belong_together(length: int, padded: int, oldest: int) -> bool:
    """Whether neither this text nor the oldest would be mostly padding in a batch padded to `padded`."""
    return padded <= _SHORT_TOKENS or 2 * min(length, oldest) >= padded
