"""Which computed prompt beginnings can be used again, and where. Pure.

The model's memory has a fixed number of sequences. One that nobody uses any more keeps its tokens, and the next
prompt that begins with the same ones need not read them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

# Shorter beginnings are read again as quickly as they are copied.
_WORTHWHILE: Final = 16


class Source(Enum):
    """Where the reused beginning is."""

    NOWHERE = "nowhere"
    PLACE = "place"
    """In the sequence itself, which is free."""
    SEQUENCE = "sequence"
    """In another sequence."""
    STATE = "state"
    """Among the saved states."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The sequence for a prompt, and how many of its first tokens are computed already."""

    sequence: int
    reused: int = 0
    source: Source = Source.NOWHERE
    donor: int = -1
    """The other sequence, if the beginning is there."""
    state: tuple[int, ...] = ()
    """The key of the saved state, if it is there."""


def common_prefix(some: Sequence[int], others: Sequence[int]) -> int:
    """How many first tokens are the same. Both are lists, or both are tuples."""
    low, high = 0, min(len(some), len(others))
    if some[:high] == others[:high]:
        return high
    # They differ before `high`. Slices are compared much faster than tokens one by one.
    while high - low > 1:
        middle = (low + high) // 2
        if some[low:middle] == others[low:middle]:
            low = middle
        else:
            high = middle
    return low


def place(
    prompt: Sequence[int],
    resident: Sequence[Sequence[int]],
    free: Sequence[int],
    states: SavedStates,
) -> Placement:
    """Where to put a prompt.

    `resident` has the tokens of every sequence, `free` the sequences without an answer, least recently used first;
    there is at least one. The last token of a prompt is always computed, because the answer begins with its logits.
    """
    known = [min(common_prefix(prompt, tokens), len(prompt) - 1) for tokens in resident]
    own = max(free, key=lambda sequence: (known[sequence], -len(resident[sequence])))
    # Not to be overwritten for want of the rest of a long conversation that shares nothing but its beginning.
    if known[own] >= _WORTHWHILE and 2 * known[own] >= len(resident[own]):
        return Placement(own, known[own], Source.PLACE)
    emptiest = min(free, key=lambda sequence: (bool(resident[sequence]), free.index(sequence)))
    donor = max(range(len(resident)), key=lambda sequence: known[sequence])
    state = states.best(prompt)
    saved = min(common_prefix(tuple(prompt), state), len(prompt) - 1)
    if max(known[donor], saved) < _WORTHWHILE:
        return Placement(emptiest)
    if saved > known[donor]:
        return Placement(emptiest, saved, Source.STATE, state=state)
    if donor == emptiest:
        return Placement(donor, known[donor], Source.PLACE)
    return Placement(emptiest, known[donor], Source.SEQUENCE, donor=donor)


class SavedStates:
    """States of sequences that had to make room, by their tokens; the least recently used go first."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self.limit = limit
        self._states: OrderedDict[tuple[int, ...], bytearray] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._states)

    def worth_saving(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens are many enough, and not the beginning of what is saved already."""
        return len(tokens) >= _WORTHWHILE and common_prefix(tuple(tokens), self.best(tokens)) < len(tokens)

    def save(self, tokens: Sequence[int], state: bytearray) -> None:
        """Keep a state, unless it is larger than all that may be kept, or could not be written down."""
        if not 0 < len(state) <= self.limit:
            return
        for key in [key for key in self._states if len(key) <= len(tokens) and tuple(tokens[: len(key)]) == key]:
            self._drop(key)
        self._states[tuple(tokens)] = state
        self.size += len(state)
        while self.size > self.limit:
            self._drop(next(iter(self._states)))

    def best(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The tokens of the state that has most in common with a prompt; empty if there is none."""
        prompt = tuple(prompt)
        return max(self._states, key=lambda tokens: common_prefix(prompt, tokens), default=())

    def state(self, tokens: tuple[int, ...]) -> bytearray:
        """The state saved for these tokens, which are used now."""
        self._states.move_to_end(tokens)
        return self._states[tokens]

    def _drop(self, tokens: tuple[int, ...]) -> None:
        self.size -= len(self._states.pop(tokens))
