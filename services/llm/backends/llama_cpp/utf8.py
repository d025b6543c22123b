"""Text out of tokens that may end in the middle of a character."""

from __future__ import annotations

import codecs


class IncrementalText:
    """Gives characters when they are complete: an emoji is often three tokens."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        """The characters that this piece completes."""
        return self._decoder.decode(piece)

    def end(self) -> str:
        """A replacement character if something incomplete is left, else nothing."""
        return self._decoder.decode(b"", final=True)
