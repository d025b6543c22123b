"""JSON: every value as a line that says where it stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from services.workers.parsing.charset import file_encoding, read_text
from services.workers.parsing.document import ParsedDocument, ParseOptions, damaged, too_complex
from sluice.documents.text import Block, BlockKind, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def parse(path: Path, options: ParseOptions) -> ParsedDocument:  # noqa: ARG001 - every parser has this signature
    """The values in the order of the file, as `path: value`; a file of one JSON value per line will do as well."""
    encoding = file_encoding(path)
    values = _values(read_text(path, encoding))
    return ParsedDocument(_blocks(values), encoding=encoding)


def _values(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise too_complex("The JSON is nested too deeply to be read.") from error
    except json.JSONDecodeError as whole:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError:
            raise damaged(f"The JSON breaks off at line {whole.lineno}, column {whole.colno}: {whole.msg}.") from whole


def _blocks(value: Any) -> Iterator[Block]:
    for path, leaf in _leaves(value, ""):
        if text := one_line(f"{path}: {leaf}" if path else leaf):
            yield Block(BlockKind.TABLE_ROW, text)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """The path and text of every value that is not null, a list or an object."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _leaves(member, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _leaves(member, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, value
    elif value is not None:
        yield path, json.dumps(value)
