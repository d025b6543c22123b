"""Which prompt is read next, and how much of it. Pure.

Every running answer gets its next token in each step; what is left of the time that a step may take goes to the prompts
that wait to be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil
from typing import Final

LARGEST_STEP: Final = 256
"""Prompt tokens of a pass at most. Larger ones gain nothing (285 tokens/s at 128, 231 at 512) and delay a cancel."""

TURN: Final = 256
"""Tokens that a prompt reads at most before the next one has its turn."""

ROWS_AT_ONCE: Final = 16
"""llama.cpp multiplies sixteen rows of a batch with the weights at once, the rest by fours, and what is left of that
one by one: each of those takes as long as four."""

# What a pass reads: as many rows as are computed at once, or a half or a quarter of them.
_SIZES: Final[tuple[int, ...]] = (4, 8, *range(ROWS_AT_ONCE, LARGEST_STEP + 1, ROWS_AT_ONCE))
# A row of those that are computed by fours takes as long as so many of the others.
_EFFORT_BY_FOURS: Final = 1.4
# The weights are read from memory for one row as for all.
_EFFORT_OF_A_PASS: Final = 2
# Running answers may come about half as fast as usual while a prompt is read.
_SLOW_DOWN: Final = 2.3
_WEIGHT_OF_NEWEST: Final = 0.3
# A step is over before four of them would make the watchdog bark.
_STEPS_PER_BEAT: Final = 4


class Turns:
    """Who reads next: one prompt after the other, and a long one only so much before the next has its turn.

    To read all at once in equal parts would let everybody wait for the last one.
    """

    def __init__(self) -> None:
        self._line: deque[int] = deque()
        """Sequences, the one whose turn it is first."""
        self._used = 0
        """Tokens that it has read in this turn."""

    def shares(self, unread: Mapping[int, int], budget: int) -> dict[int, int]:
        """How many tokens of each prompt the next step reads. `unread` says what is left of each, by sequence."""
        self._meet(unread)
        given: dict[int, int] = {}
        while budget and self._line:
            sequence = self._line[0]
            left = unread[sequence] - given.get(sequence, 0)
            tokens = min(left, budget, TURN - self._used)
            given[sequence] = given.get(sequence, 0) + tokens
            budget -= tokens
            self._used += tokens
            if tokens == left:
                self._next(again=False)
            elif self._used == TURN:
                self._next(again=True)
        return given

    def _meet(self, unread: Mapping[int, int]) -> None:
        """Forget who has gone, and let newcomers stand at the end."""
        if self._line and self._line[0] not in unread:
            self._used = 0
        self._line = deque(sequence for sequence in self._line if sequence in unread)
        self._line.extend(sequence for sequence in unread if sequence not in self._line)

    def _next(self, *, again: bool) -> None:
        sequence = self._line.popleft()
        if again:
            self._line.append(sequence)
        self._used = 0


class Pace:
    """How fast the model reads and writes on this machine, learnt from the passes that were made."""

    def __init__(self, target_seconds: float, stuck_seconds: float) -> None:
        """`target_seconds`: pauses between tokens up to this long disturb nobody; `stuck_seconds`: the watchdog's."""
        self._target = target_seconds
        self._longest_step = stuck_seconds / _STEPS_PER_BEAT
        self._write_seconds: dict[int, float] = {}
        self._row_seconds: float | None = None

    def record_writing(self, writers: int, seconds: float) -> None:
        """The next tokens of so many running answers took so long."""
        self._write_seconds[writers] = _mixed(self._write_seconds.get(writers), seconds)

    def record_reading(self, tokens: int, seconds: float) -> None:
        """So many tokens of prompts took so long."""
        self._row_seconds = _mixed(self._row_seconds, seconds / _effort(tokens))

    @property
    def row_seconds(self) -> float | None:
        """Time of one more token of a prompt, if known. It grows with the length of what was read before."""
        return self._row_seconds

    def budget(self, writers: int, readers: int) -> int:
        """Prompt tokens that the next pass may read, for so many prompts beside so many running answers.

        Each prompt adds as much time as a single one would, so that it is read no slower when others come; running
        answers wait for all of them.
        """
        if self._row_seconds is None:
            return ROWS_AT_ONCE
        seconds = self._longest_step
        if writers:
            usual = self._usual_seconds(writers)
            seconds = min(seconds, readers * (max(self._target, _SLOW_DOWN * usual) - usual))
        row_seconds = self._row_seconds
        return max((size for size in _SIZES if _effort(size) * row_seconds <= seconds), default=_SIZES[0])

    def _usual_seconds(self, writers: int) -> float:
        """Time of a pass that writes, for so many answers; 0 if nothing is known yet."""
        if not self._write_seconds:
            return 0.0
        return self._write_seconds[min(self._write_seconds, key=lambda known: abs(known - writers))]


def _effort(rows: int) -> float:
    """How long a pass takes, in rows of those that are computed sixteen at a time."""
    by_fours = rows % ROWS_AT_ONCE
    return rows - by_fours + _EFFORT_BY_FOURS * 4 * ceil(by_fours / 4) + _EFFORT_OF_A_PASS


def _mixed(known: float | None, newest: float) -> float:
    return newest if known is None else known + _WEIGHT_OF_NEWEST * (newest - known)
