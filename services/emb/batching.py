"""Which texts go through the model together: oldest first, nearest lengths beside it, within a budget of tokens.

Questions go before documents, however many of these wait; while both wait, each has every other pass: neither starves.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Generic, Protocol, TypeVar

from sluice.embedding_models.shapes import most_texts
from sluice.wire.embeddings import InputType

# Of a model that has not been measured.
_TOKENS_PER_SECOND = 16_384.0
# Below this length padding costs less than a pass of its own.
_SHORT_TOKENS = 32
# To look through what is kept is worth its time after as many moves as texts were left the last time, or these.
_LEAST_MOVES = 256


class Owner(Protocol):
    """Who waits for a text."""

    @property
    def wanted(self) -> bool:
        """False once nobody waits any more: the client is gone, or its deadline has passed."""

    @property
    def lane(self) -> Hashable:
        """Only texts of one lane share a pass: those for the same model."""


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


_ByAge = list[tuple[float, int, WaitingText[OwnerT]]]
_ByLength = dict[int, deque[WaitingText[OwnerT]]]
# What is looked for first and what instead, by what went last.
_BY_TURNS: Final[dict[InputType, tuple[InputType, InputType]]] = {
    "document": ("query", "document"),
    "query": ("document", "query"),
}


class WaitingTexts(Generic[OwnerT]):
    """The texts that wait, and the rule by which they leave in batches. Not thread-safe."""

    def __init__(self) -> None:
        self._by_age: dict[InputType, _ByAge[OwnerT]] = {"query": [], "document": []}
        self._last: InputType = "document"
        self._lanes: dict[tuple[Hashable, InputType], _ByLength[OwnerT]] = {}
        self._arrivals = count()
        self._moves = 0
        self._moves_until_sweep = _LEAST_MOVES

    def add(
        self, texts: Iterable[WaitingText[OwnerT]], *, now: float, tokens_per_second: float = _TOKENS_PER_SECOND
    ) -> None:
        """Let the texts of one request wait.

        The texts of a long list count as younger by the time that their model, at so many `tokens_per_second`, takes
        for those before them: a shorter list that comes later has its turn in between, and neither waits for ever.
        """
        self._sweep_in_time()
        ahead = 0
        # Longest first within a request: its batches then have almost equal lengths.
        for text in sorted(texts, key=lambda text: -text.tokens):
            due = now + ahead / tokens_per_second
            ahead += text.tokens
            heapq.heappush(self._by_age[text.input_type], (due, next(self._arrivals), text))
            self._lane_of(text).setdefault(text.tokens, deque()).append(text)
            self._moves += 1

    def take(self, budget_for: Callable[[WaitingText[OwnerT]], int]) -> list[WaitingText[OwnerT]]:
        """The next batch, empty if nothing waits.

        Its longest text times its size is at most the budget for its oldest text, in tokens, unless it is a single
        text that is longer.
        """
        self._sweep_in_time()
        first, second = _BY_TURNS[self._last]
        oldest = self._pop_oldest(first) or self._pop_oldest(second)
        if oldest is None:
            # Nothing waits, so all that is left in the lanes is gone or taken.
            self._lanes.clear()
            return []
        self._last = oldest.input_type
        lane, budget = self._lane_of(oldest), budget_for(oldest)
        batch, longest = [oldest], oldest.tokens
        for length in sorted(lane, key=lambda length: abs(length - oldest.tokens)):
            padded = max(longest, length)
            room = most_texts(budget, padded) - len(batch)
            if room > 0 and _belong_together(length, padded, oldest.tokens):
                mates = list(self._pop_from(lane, length, room))
                batch += mates
                self._moves += len(mates)
                longest = padded if mates else longest
        return batch

    def _pop_oldest(self, input_type: InputType) -> WaitingText[OwnerT] | None:
        by_age = self._by_age[input_type]
        while by_age:
            *_, text = heapq.heappop(by_age)
            self._moves += 1
            if text.waits:
                text.taken = True
                return text
        return None

    def _sweep_in_time(self) -> None:
        """Let go of texts that were taken or that nobody wants, so that there are never many more than wait.

        They stay where they were not looked for: by age if they went with an older one, by length if they were the
        oldest, and in both if they were given up.
        """
        if self._moves < self._moves_until_sweep:
            return
        for by_age in self._by_age.values():
            by_age[:] = [entry for entry in by_age if entry[-1].waits]
            heapq.heapify(by_age)
        lanes = {key: _those_that_wait(lane) for key, lane in self._lanes.items()}
        self._lanes = {key: lane for key, lane in lanes.items() if lane}
        self._moves, self._moves_until_sweep = 0, max(_LEAST_MOVES, sum(map(len, self._by_age.values())))

    def _lane_of(self, text: WaitingText[OwnerT]) -> _ByLength[OwnerT]:
        return self._lanes.setdefault((text.owner.lane, text.input_type), {})

    @staticmethod
    def _pop_from(lane: _ByLength[OwnerT], length: int, room: int) -> Iterator[WaitingText[OwnerT]]:
        same_length = lane[length]
        while same_length and room:
            text = same_length.popleft()
            if text.waits:
                text.taken = True
                room -= 1
                yield text
        if not same_length:
            del lane[length]


def _those_that_wait(lane: _ByLength[OwnerT]) -> _ByLength[OwnerT]:
    kept = {length: deque(text for text in texts if text.waits) for length, texts in lane.items()}
    return {length: texts for length, texts in kept.items() if texts}


def _belong_together(length: int, padded: int, oldest: int) -> bool:
    """Whether neither this text nor the oldest would be mostly padding in a batch padded to `padded`."""
    return padded <= _SHORT_TOKENS or 2 * min(length, oldest) >= padded
