"""Which module reads which type."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from sluice.documents import media_types
from sluice.documents.parsers import OTHER_PARSERS
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


# Those of `OTHER_PARSERS`, which says which types each of them reads.
_CHOSEN: Final[Mapping[str, str]] = {"pypdf": "pdf_text", "plain": "plain"}


def parser_for(mime: str, chosen: str | None = None) -> Parser:
    """The parser of this type, or the one chosen by name; `UnsupportedType` if there is none."""
    if mime not in _PARSERS or (chosen is not None and mime not in OTHER_PARSERS.get(chosen, ())):
        raise UnsupportedType(f"No parser {chosen or ''} reads {mime}.".replace("  ", " "))
    return cast("Parser", import_module(f"{__package__}.{_PARSERS[mime] if chosen is None else _CHOSEN[chosen]}"))
