"""Which module reads which type."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from sluice.documents import media_types
from sluice.errors import UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.workers.parsing.document import Parser

# Names, not modules: a child process reads one document and imports one parser.
_PARSERS: Final[Mapping[str, str]] = {
    media_types.PDF: "pdf",
    media_types.DOCX: "docx_file",
    media_types.PPTX: "pptx_file",
    media_types.XLSX: "xlsx",
    media_types.HTML: "html_page",
    media_types.EPUB: "epub",
    media_types.MARKDOWN: "markdown",
    media_types.PLAIN: "plain",
    media_types.CSV: "csv_table",
    media_types.JSON: "json_tree",
    media_types.EML: "eml",
    media_types.PNG: "image",
    media_types.JPEG: "image",
    media_types.TIFF: "image",
}


def parser_for(mime: str) -> Parser:
    """The parser of this type; `UnsupportedType` if there is none."""
    if mime not in _PARSERS:
        raise UnsupportedType(f"No parser reads {mime}.")
    return cast("Parser", import_module(f"{__package__}.{_PARSERS[mime]}"))
