"""The parsers that people can choose by name, and the types whose pages can be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sluice.documents.media_types import CSV, EML, EPUB, HTML, JSON, MARKDOWN, PDF, PLAIN, PPTX, TIFF, XLSX

if TYPE_CHECKING:
    from collections.abc import Mapping

# Each reads these types in another way than their usual parser does.
OTHER_PARSERS: Final[Mapping[str, frozenset[str]]] = {
    # The text layer as pypdf sees it, without boxes and headings: for files on which PDFium crashes.
    "pypdf": frozenset({PDF}),
    # The file as it stands, line by line, whatever its markup means.
    "plain": frozenset({HTML, MARKDOWN, CSV, JSON, EML, PLAIN}),
}
# A slide, a sheet, a chapter and a frame are pages too.
PAGED: Final = frozenset({PDF, PPTX, XLSX, EPUB, TIFF})
