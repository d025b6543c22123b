"""Lines of pages put together again: paragraphs, headings, lists and code, without what runs along every page."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Final

from sluice.documents.text import Block, BlockKind, Line, Span, join_lines, normalize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_LEADERS: Final = re.compile(r"(?:\s?[.·…]){4,}\s*(?:\d+|[ivxlc]+)?\s*$")  # a line of a table of contents
_BULLET: Final = re.compile(r"^\s*(?:[•◦▪■●‣⁃∙·–—*-]|\(?\d{1,3}[.)]|\(?[a-zа-я]\))\s+\S")
_HYPHENS: Final = ("-", "\u2010", "\u00ad")
_SENTENCE_END: Final = re.compile(r"[.!?:;…][\"'»”)\]]*$")
_NUMBERED: Final = re.compile(r"^(\d{1,2}(?:\.\d{1,3})*)\.?\s")
_CHAPTER: Final = re.compile(r"^(?:chapter|part|appendix|глава|часть|раздел|приложение)\b", re.IGNORECASE)
_DIGITS: Final = re.compile(r"\d+|^[ivxlc]+$")
_LABEL: Final = re.compile(
    r"^(?:(?:chapter|part|appendix|глава|часть|раздел|приложение)\s+)?[\dA-ZА-Я]?[\d.]*\s+", re.IGNORECASE
)

_FEWEST_ENTRIES: Final = 5  # a page of which so many lines, and this share, have leaders is a table of contents
_ENTRIES_SHARE: Final = 0.3

_MARGIN: Final = 0.09  # of the page's height, at top and bottom, where running lines stand
_RUNNING_PAGES: Final = 3
_RUNNING_SHARE: Final = 0.6
_MOST_RUNNING_LINES: Final = 4
_RUNNING_PREFIX: Final = 16

_SAME_SIZE: Final = 0.08
_LARGE: Final = 1.12
_LEVELS_BY_SIZE: Final = ((1.9, 1), (1.5, 2), (1.25, 3))
_SMALLEST_LEVEL: Final = 4
_LONGEST_HEADING: Final = 250
_LONGEST_BOLD_HEADING: Final = 100
_INDENT: Final = 0.8  # in sizes of the font
_SHORT_LINE: Final = 0.15  # of the paragraph's width
_NEXT_LINE: Final = 1.4  # in usual distances of lines
_DEFAULT_PITCH: Final = 1.25  # in sizes of the font


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """A line with what its print says about it; `baseline` and `size` in points."""

    line: Line
    baseline: float
    size: float
    bold: bool = False
    fixed_pitch: bool = False
    in_columns: bool = False  # wide gaps part its words, as in the row of a table


@dataclass(frozen=True, slots=True)
class Page:
    """The lines of a page in reading order."""

    number: int
    height: float
    lines: Sequence[PrintedLine]


@dataclass(frozen=True, slots=True)
class Survey:
    """What is usual in a document: the size and distance of its lines, and the places where lines run along."""

    size: float
    pitch: float
    running: frozenset[tuple[int, int]]


def survey(pages: Iterable[Page]) -> Survey:
    """What these pages have in common."""
    sizes: Counter[float] = Counter()
    pitches: list[float] = []
    places: dict[tuple[int, int], Counter[str]] = {}
    for page in pages:
        for line in page.lines:
            sizes[round(line.size, 1)] += len(line.line.text)
            if _in_margin(line, page):
                places.setdefault(_place(line), Counter())[_masked(line)] += 1
        pitches += _pitches(page.lines)
    size = sizes.most_common(1)[0][0] if sizes else 10.0
    return Survey(
        size=size,
        pitch=median(pitches) if pitches else size * _DEFAULT_PITCH,
        running=frozenset(place for place, texts in places.items() if _recurs(texts)),
    )


def _pitches(lines: Sequence[PrintedLine]) -> Iterator[float]:
    for above, below in pairwise(lines):
        drop = above.baseline - below.baseline
        if abs(above.size - below.size) < _SAME_SIZE * above.size and 0.9 * above.size < drop < 2 * above.size:
            yield drop


def _in_margin(line: PrintedLine, page: Page) -> bool:
    return not page.height * _MARGIN < line.baseline < page.height * (1 - _MARGIN)


def _place(line: PrintedLine) -> tuple[int, int]:
    return round(line.baseline / 2), round(line.size)


def _masked(line: PrintedLine) -> str:
    return _DIGITS.sub("#", line.line.text.strip().lower())[:_RUNNING_PREFIX]


def _recurs(texts: Counter[str]) -> bool:
    """Whether what stands at a place is mostly the same from page to page; the first lines of a text never are."""
    repeated = sum(count for count in texts.values() if count > 1)
    return repeated >= _RUNNING_PAGES and repeated >= texts.total() * _RUNNING_SHARE


def body_lines(page: Page, usual: Survey) -> list[PrintedLine]:
    """The lines of a page without running heads, page numbers and tables of contents."""
    entries = sum(bool(_LEADERS.search(line.line.text)) for line in page.lines)
    if entries >= _FEWEST_ENTRIES and entries >= len(page.lines) * _ENTRIES_SHARE:
        return []
    lines = [line for line in page.lines if not _LEADERS.search(line.line.text)]
    own = [line for line in lines if not _runs_along(line, page, usual)]
    # A page of nothing else is blank, unless there is more of it than any page has running lines.
    return own if own or len(lines) <= _MOST_RUNNING_LINES else lines


def _runs_along(line: PrintedLine, page: Page, usual: Survey) -> bool:
    """Whether this is a running line; a heading at the top of a page is larger."""
    return line.size < usual.size * _LARGE and _in_margin(line, page) and _place(line) in usual.running


def blocks(pages: Iterable[Page], usual: Survey, outline: Mapping[int, Mapping[str, int]]) -> Iterator[Block]:
    """The blocks of a document; a paragraph may go on over the end of a page.

    `outline` gives, by page number, the level of each heading by its `outline_key`.
    """
    open_lines: list[PrintedLine] = []
    for page in pages:
        for line in body_lines(page, usual):
            if open_lines and not _continues(open_lines, line, usual):
                yield from _block(open_lines, usual, outline)
                open_lines = []
            open_lines.append(line)
    if open_lines:
        yield from _block(open_lines, usual, outline)


def _continues(above: Sequence[PrintedLine], line: PrintedLine, usual: Survey) -> bool:
    """Whether the line belongs to the paragraph, heading, table row or code above it."""
    last = above[-1]
    if line.fixed_pitch != last.fixed_pitch or abs(line.size - last.size) > _SAME_SIZE * last.size:
        return False
    drop = last.baseline - line.baseline
    if line.line.page != last.line.page or drop < -last.size:
        return _runs_on(last.line.text, line.line.text)
    pitch = usual.pitch * line.size / usual.size
    if drop > pitch * _NEXT_LINE or (line.bold != last.bold and len(above) == 1 and last.size > usual.size):
        return False
    if line.fixed_pitch or _is_broken(last.line.text, line.line.text):
        return True
    if line.in_columns or above[0].in_columns:
        return not line.in_columns and line.line.box[0] > above[0].line.box[0] + _INDENT * line.size
    return not (_BULLET.match(line.line.text) or _ends(above, line) or _is_indented(above, line))


def _is_broken(before: str, after: str) -> bool:
    """Whether a word is broken between the lines."""
    return before.endswith(_HYPHENS) and after[:1].islower()


def _runs_on(before: str, after: str) -> bool:
    """Whether a sentence goes on in the next column or on the next page."""
    return not _SENTENCE_END.search(before) and after.lstrip()[:1].islower()


def _ends(above: Sequence[PrintedLine], line: PrintedLine) -> bool:
    """Whether the last line ends a sentence and leaves room that the text below it would have used."""
    boxes = [printed.line.box for printed in (*above, line)]
    left, right = min(box[0] for box in boxes), max(box[2] for box in boxes)
    last = above[-1].line
    return last.box[2] < right - (right - left) * _SHORT_LINE and bool(_SENTENCE_END.search(last.text))


def _is_indented(above: Sequence[PrintedLine], line: PrintedLine) -> bool:
    """Whether the line starts elsewhere than the paragraph; the second line may, below an indented or hanging first."""
    return len(above) > 1 and abs(line.line.box[0] - above[-1].line.box[0]) > _INDENT * line.size


def _block(lines: Sequence[PrintedLine], usual: Survey, outline: Mapping[int, Mapping[str, int]]) -> Iterator[Block]:
    page = lines[0].line.page
    if all(line.fixed_pitch for line in lines):
        text, spans = _code(lines)
        kind, level = BlockKind.CODE, None
    else:
        text, spans = join_lines(line.line for line in lines)
        level = _heading_level(lines, text, usual, outline)
        kind = BlockKind.HEADING if level is not None else _kind(lines[0], text)
    if text:
        yield Block(kind, text, level=level, page=page, spans=spans)


def _kind(first: PrintedLine, text: str) -> BlockKind:
    if first.in_columns:
        return BlockKind.TABLE_ROW
    return BlockKind.LIST_ITEM if _BULLET.match(text) else BlockKind.PARAGRAPH


def _code(lines: Sequence[PrintedLine]) -> tuple[str, tuple[Span, ...]]:
    spans: list[Span] = []
    text = ""
    for line in lines:
        text += "\n" if text else ""
        cleaned = normalize(line.line.text).rstrip()
        spans.append(Span(len(text), len(text) + len(cleaned), line.line.page, line.line.box))
        text += cleaned
    return text, tuple(spans)


def _heading_level(
    lines: Sequence[PrintedLine], text: str, usual: Survey, outline: Mapping[int, Mapping[str, int]]
) -> int | None:
    """The level of a heading, by the outline, its number or its size; None for text."""
    if len(text) > _LONGEST_HEADING or not any(character.isalpha() for character in text):
        return None
    listed = outline.get(lines[0].line.page, {}).get(outline_key(text))
    if listed is not None:
        return listed
    ratio = max(line.size for line in lines) / usual.size
    bold = all(line.bold for line in lines) and len(text) <= _LONGEST_BOLD_HEADING and not _SENTENCE_END.search(text)
    if ratio < _LARGE and (outline or not bold or lines[0].in_columns):
        return None
    if _CHAPTER.match(text):
        return 1
    if number := _NUMBERED.match(text):
        return number[1].count(".") + 1
    return next((level for least, level in _LEVELS_BY_SIZE if ratio >= least), _SMALLEST_LEVEL)


def outline_key(title: str) -> str:
    """A heading without its number, case and marks, as outline and page both have it."""
    return "".join(character for character in _LABEL.sub("", title + " ").casefold() if character.isalnum())
