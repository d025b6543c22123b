"""CSV: a row a block, its cells named by the header row; in bounded memory."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

from services.workers.parsing.charset import file_encoding, text_lines
from services.workers.parsing.document import ParsedDocument, ParseOptions, damaged
from services.workers.parsing.tables import rows_as_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DELIMITERS: Final = ",;\t|"
_SAMPLE_LINES: Final = 50
_LONGEST_CELL: Final = 1_000_000


def parse(path: Path, options: ParseOptions) -> ParsedDocument:  # noqa: ARG001 - every parser has this signature
    """The rows as they stream from the file."""
    encoding = file_encoding(path)
    return ParsedDocument(rows_as_blocks(_rows(path, encoding)), encoding=encoding)


def _rows(path: Path, encoding: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(
        (line.replace("\0", "") + "\n" for line in text_lines(path, encoding, longest=_LONGEST_CELL)),
        delimiter=_delimiter(path, encoding),
    )
    try:
        yield from reader
    except csv.Error as error:
        raise damaged(f"The table breaks off at line {reader.line_num}: {error}.") from error


def _delimiter(path: Path, encoding: str) -> str:
    """The delimiter that the first lines agree on, by which most of them have the same number of cells."""
    lines = [
        line for line, _ in zip(text_lines(path, encoding, longest=_LONGEST_CELL), range(_SAMPLE_LINES), strict=False)
    ]

    def agreement(delimiter: str) -> tuple[int, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        common = max(set(widths), key=widths.count, default=1)
        return (widths.count(common) if common > 1 else 0, common)

    return max(_DELIMITERS, key=agreement)
