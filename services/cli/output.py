"""What a command prints: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Both obey NO_COLOR, and draw nothing that moves when they do not write to a terminal.
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def show_json(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def show_json_line(value: Any) -> None:
    """One line of JSON, written at once: for streams."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under headings; separated by tabs and without headings when another program reads them."""
    if not out.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join(_text(cell) for cell in row) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_text(cell)) for cell in row))
    out.print(table)


def say(message: str) -> None:
    """Tell the person, not the program that reads the data."""
    err.print(message, markup=False)


def size(number: int) -> str:
    """A number of bytes as people read it."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:  # noqa: PLR2004 - the prefixes of the SI
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _text(cell: object) -> str:
    return "-" if cell is None else str(cell)
