"""Citations: from an [n] in an answer to the place in a document that bears the sentence out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sluice.retrieval.passages import Passage

_MARK: Final = re.compile(r"\[(\d{1,3})\]")
# What differs between a sentence and its quotation without changing a word.
_WHITESPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True)
class Cited:
    """A sentence and the passage that it was taken from or rests on."""

    number: int
    quote: str
    passage: Passage
    page: int | None
    # A list for each line: page, x0, y0, x1, y1.
    boxes: list[list[float]]


class CitationReader:
    """Reads an answer as it is written and reports each citation once its mark is complete."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._text = ""
        self._read = 0
        self._after_mark = 0
        self._sentence = ""

    def feed(self, text: str) -> Iterator[Cited]:
        """Take more of the answer; the citations that it completes. Numbers without a passage are ignored."""
        self._text += text
        while found := _MARK.search(self._text, self._read):
            self._read = found.end()
            if self._is_part_of_a_quotation(found.end()):
                continue
            # A second mark right behind the first speaks of the same sentence.
            self._sentence = self._text[self._after_mark : found.start()].strip().lstrip(".,; ") or self._sentence
            self._after_mark = found.end()
            number = int(found[1])
            if 1 <= number <= len(self._passages):
                yield _cite(number, self._sentence, self._passages[number - 1])

    def _is_part_of_a_quotation(self, end: int) -> bool:
        """Whether the document itself has this bracketed number here, as scientific texts do."""
        quoted = self._text[self._after_mark : end].strip().lstrip(".,; ")
        return not _MARK.fullmatch(quoted) and any(_find(quoted, passage.text) for passage in self._passages)


def _cite(number: int, quote: str, passage: Passage) -> Cited:
    start, end = _locate(quote, passage.text)
    boxes = passage.boxes(start, end)
    page = int(boxes[0][0]) if boxes else passage.page
    return Cited(number, quote, passage, page, boxes)


def _locate(quote: str, text: str) -> tuple[int, int]:
    """Where the quotation stands in the passage; all of the passage when it was put in other words."""
    return _find(quote, text) or (0, len(text))


def _find(quote: str, text: str) -> tuple[int, int] | None:
    words = [re.escape(word) for word in _WHITESPACE.split(quote) if word]
    found = re.search(r"\s+".join(words), text) if words else None
    return found.span() if found else None
