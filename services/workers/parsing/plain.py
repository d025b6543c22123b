"""Plain text: paragraphs between blank lines, headings by their underline, lists by their bullets."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from services.workers.parsing.charset import file_encoding, text_lines
from services.workers.parsing.document import ParsedDocument, ParseOptions
from sluice.documents.text import Block, BlockKind, Line, join_lines, normalize, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_UNDERLINE: Final = re.compile(r"^\s*([=*#~-])\1{2,}\s*$")
_TOP_UNDERLINES: Final = frozenset("=*#")
_BULLET: Final = re.compile(r"^\s*(?:[-*+•–—]|\d{1,3}[.)]|[a-zа-я]\))\s+\S")
_INDENTED: Final = re.compile(r"^(?: {4}|\t)")

_LONGEST_LINE: Final = 16_384
_MOST_LINES: Final = 500  # of a paragraph: bounds the memory that a file without blank lines takes
_WRAPPED_AT: Final = 120  # text wrapped by hand has no longer lines; beyond, a line is a paragraph
_NOWHERE: Final = (0.0, 0.0, 0.0, 0.0)


def parse(path: Path, options: ParseOptions) -> ParsedDocument:  # noqa: ARG001 - every parser has this signature
    """The text as it streams from the file."""
    encoding = file_encoding(path)
    return ParsedDocument(text_blocks(text_lines(path, encoding, longest=_LONGEST_LINE)), encoding=encoding)


def text_blocks(lines: Iterable[str], page: int | None = None) -> Iterator[Block]:
    """The blocks of a text given line by line, of this page if it has pages."""
    for group in _groups(lines):
        for block in _blocks(group):
            yield block if page is None else replace(block, page=page)


def _groups(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines that stand together."""
    group: list[str] = []
    for line in lines:
        if line.strip():
            group.append(line)
        if group and (not line.strip() or len(group) == _MOST_LINES):
            yield group
            group = []
    if group:
        yield group


def _blocks(lines: list[str]) -> Iterator[Block]:
    if len(lines) > 1 and _UNDERLINE.match(lines[1]) and not _UNDERLINE.match(lines[0]):
        if heading := one_line(lines[0]):
            yield Block(BlockKind.HEADING, heading, level=1 if lines[1].strip()[0] in _TOP_UNDERLINES else 2)
        lines = lines[2:]
    lines = [line for line in lines if not _UNDERLINE.match(line)]
    if lines and all(_INDENTED.match(line) for line in lines) and not _BULLET.match(lines[0]):
        yield from _code(lines)
    elif any(len(line) > _WRAPPED_AT for line in lines):
        yield from _paragraphs([line] for line in lines)
    else:
        yield from _paragraphs(_items(lines))


def _code(lines: list[str]) -> Iterator[Block]:
    if code := "\n".join(normalize(line).rstrip() for line in lines).strip("\n"):
        yield Block(BlockKind.CODE, code)


def _items(lines: list[str]) -> Iterator[list[str]]:
    """The lines cut where a list item begins."""
    item: list[str] = []
    for line in lines:
        if item and _BULLET.match(line):
            yield item
            item = []
        item.append(line)
    if item:
        yield item


def _paragraphs(groups: Iterable[list[str]]) -> Iterator[Block]:
    for group in groups:
        text, _ = join_lines(Line(line, 1, _NOWHERE) for line in group)
        if text:
            yield Block(BlockKind.LIST_ITEM if _BULLET.match(group[0]) else BlockKind.PARAGRAPH, text)
