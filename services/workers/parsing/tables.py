"""Rows of tables as text that can be understood, and found, one row at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sluice.documents.text import Block, BlockKind, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_NUMBER: Final = re.compile(r"^[\d\s.,:%+-]+$")
_LONGEST_HEADER: Final = 80


def rows_as_blocks(rows: Iterable[Sequence[str]], *, page: int | None = None) -> Iterator[Block]:
    """A block for each row that is not empty: `header: value` pairs if the table begins with a row of headers."""
    header: list[str] | None = None
    for number, row in enumerate(row for raw in rows if any(row := [one_line(cell) for cell in raw])):
        if number == 0 and _is_header(row):
            header = row
        yield Block(
            BlockKind.TABLE_ROW, _plain(row) if number == 0 or header is None else _labelled(header, row), page=page
        )


def _is_header(row: Sequence[str]) -> bool:
    """Whether these cells read like names of columns: at least two, short, different, none of them a number."""
    names = [cell for cell in row if cell]
    return (
        len(names) > 1
        and len(set(names)) == len(names)
        and all(len(name) <= _LONGEST_HEADER and not _NUMBER.match(name) for name in names)
    )


def _plain(row: Sequence[str]) -> str:
    return " | ".join(cell for cell in row if cell)


def _labelled(header: Sequence[str], row: Sequence[str]) -> str:
    names = [*header, *[""] * (len(row) - len(header))]
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in zip(names, row, strict=False) if cell)
