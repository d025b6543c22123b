"""Which sequence each answer has, and what is left in those that nobody uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from services.llm.backends.llama_cpp.prefixes import SavedStates, Source, place

# A tail shorter than this is computed again as quickly as its state is saved and put back.
_TAIL_WORTH_SAVING: Final = 64


class Memory(Protocol):
    """The sequences of a context."""

    def forget(self, sequence: int, kept: int) -> bool:
        """Keep the first tokens of a sequence only; False if that cannot be done."""

    def saved_bytes(self, sequence: int) -> int:
        """Size of what `save` would return."""

    def save(self, sequence: int) -> bytearray:
        """What was computed for a sequence."""

    def restore(self, sequence: int, state: bytearray) -> bool:
        """Put it back, into any sequence and at once; False if it does not fit."""


class Seats:
    """The sequences of a context and the tokens in them."""

    def __init__(self, memory: Memory, sequences: int, states: SavedStates) -> None:
        self._memory = memory
        self._states = states
        self._tokens: list[list[int]] = [[] for _ in range(sequences)]
        self._free = list(range(sequences))

    @property
    def free(self) -> int:
        """How many answers may still begin."""
        return len(self._free)

    def take(self, prompt: Sequence[int]) -> tuple[int, int]:
        """A sequence for this prompt, and how many of its first tokens are computed in it already."""
        chosen = place(prompt, self._tokens, self._free, self._states)
        sequence, reused = chosen.sequence, chosen.reused
        # Taken first: to keep what is lost, others are given up.
        state = self._states.state(chosen.state) if chosen.source is Source.STATE else None
        self._keep_what_is_lost(sequence, reused if chosen.source is Source.PLACE else 0)
        if chosen.source is Source.SEQUENCE:
            # Not `llama_memory_seq_cp`: that only happens in the next pass, with what the donor has become by then.
            state = self._memory.save(chosen.donor)
        if state is not None and not self._memory.restore(sequence, state):
            reused = 0
        # Some kinds of memory (recurrent models) cannot be cut; they begin anew.
        if not self._memory.forget(sequence, reused):
            reused = 0
            self._memory.forget(sequence, 0)
        self._free.remove(sequence)
        self._tokens[sequence] = list(prompt[:reused])
        return sequence, reused

    def grow(self, sequence: int, tokens: Sequence[int]) -> None:
        """These tokens have been computed."""
        self._tokens[sequence].extend(tokens)

    def leave(self, sequence: int) -> None:
        """The answer is over; its tokens stay for whoever begins with the same ones."""
        self._free.append(sequence)

    def clear(self, sequence: int) -> None:
        """Nobody knows what is in this sequence any more: empty it."""
        self._memory.forget(sequence, 0)
        self._tokens[sequence] = []

    def clear_free(self) -> bool:
        """Give up what only waits to be used again; False if there was nothing."""
        filled = [sequence for sequence in self._free if self._tokens[sequence]]
        for sequence in filled:
            self.clear(sequence)
        return bool(filled)

    def _keep_what_is_lost(self, sequence: int, reused: int) -> None:
        tokens = self._tokens[sequence]
        if len(tokens) - reused < _TAIL_WORTH_SAVING or not self._states.worth_saving(tokens):
            return
        # Asked first: writing a state down takes long, and its memory.
        if self._memory.saved_bytes(sequence) <= self._states.limit:
            self._states.save(tokens, self._memory.save(sequence))
