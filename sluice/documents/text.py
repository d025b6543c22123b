"""What parsing yields and chunking reads: blocks of clean text that know where they stand on their pages."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

Box = tuple[float, float, float, float]

_SOFT_HYPHEN: Final = "\u00ad"
_LINE_END_HYPHENS: Final = ("-", "\u2010")
# Written with a hyphen wherever the line ends: «кто-нибудь», "CPU-only", "2024-2025".
_KEEPS_HYPHEN_BEFORE: Final = re.compile(r"(?:[A-ZА-ЯЁ0-9]|\w-\w+)$")
_KEEPS_HYPHEN_AFTER: Final = re.compile(r"(?:нибудь|либо|таки)\b")


class BlockKind(StrEnum):
    """What a block is to its reader."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE_ROW = "table_row"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Span:
    """Where the characters `start` to `end` of a text stand: a 1-based page and a box in PDF points.

    The box is x0, y0, x1, y1 with the origin at the bottom left, as `convertToViewportRectangle` of pdf.js wants it.
    """

    start: int
    end: int
    page: int
    box: Box


@dataclass(frozen=True, slots=True)
class Line:
    """A line as a page shows it."""

    text: str
    page: int
    box: Box


@dataclass(frozen=True, slots=True)
class Block:
    """A heading (with its level, 1 at the top), paragraph, list item, table row or piece of code."""

    kind: BlockKind
    text: str
    level: int | None = None
    page: int | None = None
    spans: tuple[Span, ...] = ()

    def to_json(self) -> str:
        """One line of JSON without the line break; what is empty is left out."""
        record: dict[str, Any] = {"kind": self.kind.value, "text": self.text}
        if self.level is not None:
            record["level"] = self.level
        if self.page is not None:
            record["page"] = self.page
        if self.spans:
            record["spans"] = [[span.start, span.end, span.page, *span.box] for span in self.spans]
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Block:
        """The block that `to_json` wrote."""
        record = json.loads(line)
        return cls(
            kind=BlockKind(record["kind"]),
            text=record["text"],
            level=record.get("level"),
            page=record.get("page"),
            spans=tuple(Span(s[0], s[1], s[2], (s[3], s[4], s[5], s[6])) for s in record.get("spans", ())),
        )


def _translation() -> dict[int, str | None]:
    table: dict[int, str | None] = {
        code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"
    }
    table |= dict.fromkeys((0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029), "\n")
    table |= dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
    # Soft hyphen, zero-width space, word joiner, byte order mark; and bidi controls, which can make text lie.
    table |= dict.fromkeys((0xAD, 0x200B, 0x2060, 0xFEFF), None)
    table |= dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), None)
    # Neither can be stored as UTF-8 text: halves of surrogate pairs and noncharacters.
    table |= dict.fromkeys((*range(0xD800, 0xE000), 0xFFFE, 0xFFFF), None)
    # Typesetters' ligatures, which nobody types into a search box.
    ligatures = ("ff", "fi", "fl", "ffi", "ffl", "st", "st")
    return table | {0xFB00 + offset: letters for offset, letters in enumerate(ligatures)}


_TRANSLATION: Final = _translation()


def normalize(text: str) -> str:
    """The text in NFC, with plain line feeds and blanks, free of control, soft-hyphen and zero-width characters."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").translate(_TRANSLATION))


def one_line(text: str) -> str:
    """The normalized text with every run of white space as one blank, none at the ends."""
    return " ".join(normalize(text).split())


def join_lines(lines: Iterable[Line]) -> tuple[str, tuple[Span, ...]]:
    """The paragraph that these lines make, words mended that were broken at line ends, and one span per line."""
    text = ""
    spans: list[Span] = []
    for line in lines:
        raw = line.text.rstrip()
        stripped = one_line(raw[:-1] + "-" if raw.endswith(_SOFT_HYPHEN) else raw)
        if not stripped:
            continue
        text = _mended(text, stripped)
        spans.append(Span(len(text), len(text) + len(stripped), line.page, line.box))
        text += stripped
    return text, _within(spans, len(text))


def _mended(text: str, following: str) -> str:
    """The text so far, ready for the following line: its broken word opened, or a blank added."""
    if not text:
        return text
    if not text.endswith(_LINE_END_HYPHENS) or not text[-2:-1].isalnum():
        return text + " "
    if not following[:1].islower() or _KEEPS_HYPHEN_BEFORE.search(text[:-1]) or _KEEPS_HYPHEN_AFTER.match(following):
        return text
    return text[:-1]


def _within(spans: list[Span], length: int) -> tuple[Span, ...]:
    """The spans, ends corrected where a hyphen was taken back."""
    ends = [*(span.start for span in spans[1:]), length]
    return tuple(Span(s.start, min(s.end, end), s.page, s.box) for s, end in zip(spans, ends, strict=False))
