"""Where an answer ends: at a stop string, at the limit of tokens, or by itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.llm.backends.base import Piece
from sluice.wire.completions import FinishReason


class AnswerLimits:
    """Lets through the text of an answer up to its end.

    Text that may be the beginning of a stop string is held back until it is known to be none.
    """

    def __init__(self, stop: Sequence[str], max_tokens: int | None) -> None:
        self._stop = stop
        self._max_tokens = max_tokens
        self._held = ""
        self.tokens = 0
        self.finish_reason: FinishReason | None = None
        self.reason_of_the_end: FinishReason = "stop"
        """Why the backend ended the answer, when it does."""

    def feed(self, piece: Piece) -> str:
        """What of the answer may be shown after this piece; `finish_reason` is set when that was the last of it."""
        self.tokens += piece.tokens
        self._held += piece.text
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.finish_reason = "stop"
            return self._release(min(found))
        if piece.tokens and self._max_tokens is not None and self.tokens >= self._max_tokens:
            self.finish_reason = "length"
            return self._release(len(self._held))
        return self._release(len(self._held) - self._possible_beginning())

    def end(self) -> str:
        """The text held back, when the answer has ended by itself."""
        self.finish_reason = self.finish_reason or self.reason_of_the_end
        return self._release(len(self._held))

    def _release(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        return shown

    def _possible_beginning(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
