"""XLSX: sheets as headings, rows as they stream, their cells named by the header row."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

import openpyxl

from services.workers.parsing.archive import check_archive
from services.workers.parsing.document import ParsedDocument, ParseOptions
from services.workers.parsing.tables import rows_as_blocks
from sluice.documents.text import Block, BlockKind, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The workbook with the values that its formulas had when it was saved, a sheet a page."""
    check_archive(path, options)
    # Opened here, because openpyxl refuses a path that does not end as it expects.
    file = path.open("rb")
    workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
    return ParsedDocument(
        _blocks(workbook, options),
        title=one_line(workbook.properties.title or "") or None,
        pages=len(workbook.worksheets),
    )


def _blocks(workbook: openpyxl.Workbook, options: ParseOptions) -> Iterator[Block]:
    for page in options.wanted_pages(len(workbook.worksheets)):
        sheet = workbook.worksheets[page - 1]
        # The size that a sheet claims can be a million empty columns; what it holds is found by reading.
        sheet.reset_dimensions()
        rows = rows_as_blocks(_rows(sheet.iter_rows(values_only=True)), page=page)
        for first in rows:
            yield Block(BlockKind.HEADING, one_line(sheet.title), level=1, page=page)
            yield first
            yield from rows
    workbook.close()


def _rows(rows: Iterator[tuple[Any, ...]]) -> Iterator[Sequence[str]]:
    for row in rows:
        yield [_shown(value) for value in row]


def _shown(value: Any) -> str:
    """The value as a reader would write it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time.min else value.isoformat(" ", "minutes")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)
