"""What the next step of the model computes, and how much of a prompt fits into it. Pure.

A step is one pass of the model over one batch. Every running answer gets its next token in each step; what is left of
the time that a step may take goes to the prompts that wait to be read, in equal shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LARGEST_STEP: Final = 256
"""Prompt tokens of a step at most. Larger ones gain nothing (285 tokens/s at 128, 231 at 512) and delay a cancel."""

_SMALLEST_STEP: Final = 4
# Running answers may come half as fast as usual while a prompt is read.
_SLOW_DOWN: Final = 2.0
_WEIGHT_OF_NEWEST: Final = 0.3
# A step is over before four of them would make the watchdog bark.
_STEPS_PER_BEAT: Final = 4


@dataclass(frozen=True, slots=True)
class Share:
    """So many tokens of the prompt in this sequence."""

    sequence: int
    tokens: int


def shares(unread: Sequence[Share], budget: int, turn: int) -> list[Share]:
    """How much of each unread prompt the next step reads.

    `unread` says what is left of each prompt, `turn` counts steps: whoever comes first changes with it, so that the
    tokens that do not divide evenly, and budgets smaller than the number of prompts, go round.
    """
    first = turn % len(unread) if unread else 0
    waiting = [*unread[first:], *unread[:first]]
    given = dict.fromkeys((share.sequence for share in waiting), 0)
    while budget and waiting:
        fair = max(1, budget // len(waiting))
        for share in waiting:
            tokens = min(fair, share.tokens - given[share.sequence], budget)
            given[share.sequence] += tokens
            budget -= tokens
        waiting = [share for share in waiting if given[share.sequence] < share.tokens]
    return [Share(sequence, tokens) for sequence, tokens in given.items() if tokens]


class Pace:
    """How fast the model reads and writes on this machine, learnt from the steps that were made."""

    def __init__(self, target_seconds: float, stuck_seconds: float) -> None:
        """`target_seconds`: pauses between tokens up to this long disturb nobody; `stuck_seconds`: the watchdog's."""
        self._target = target_seconds
        self._longest_step = stuck_seconds / _STEPS_PER_BEAT
        self._write_seconds: dict[int, float] = {}
        self._read_seconds: float | None = None

    def record(self, writers: int, read: int, seconds: float) -> None:
        """A step took so long for so many running answers and so many prompt tokens."""
        if not read:
            self._write_seconds[writers] = _mixed(self._write_seconds.get(writers), seconds)
            return
        for_prompts = max(seconds - self.write_seconds(writers), 0.1 * seconds)
        self._read_seconds = _mixed(self._read_seconds, for_prompts / read)

    def write_seconds(self, writers: int) -> float:
        """Time of a step that only writes, for so many answers; 0 if nothing is known yet."""
        if not writers or not self._write_seconds:
            return 0.0
        nearest = min(self._write_seconds, key=lambda known: abs(known - writers))
        return self._write_seconds[nearest]

    @property
    def read_seconds(self) -> float | None:
        """Time that one more prompt token adds to a step, if known."""
        return self._read_seconds

    def budget(self, writers: int) -> int:
        """Prompt tokens that the next step may read beside so many running answers."""
        if self._read_seconds is None:
            return LARGEST_STEP if not writers else 8 * _SMALLEST_STEP
        if not writers:
            seconds = self._longest_step
        else:
            writing = self.write_seconds(writers)
            seconds = min(max(self._target, _SLOW_DOWN * writing) - writing, self._longest_step)
        return max(_SMALLEST_STEP, min(LARGEST_STEP, int(seconds / self._read_seconds)))


def _mixed(known: float | None, newest: float) -> float:
    return newest if known is None else known + _WEIGHT_OF_NEWEST * (newest - known)
