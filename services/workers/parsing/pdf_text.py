"""PDF by pypdf: the text of each page, without boxes or headings. Slower, but written in Python: nothing crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError, PyPdfError

from services.workers.parsing.document import ParsedDocument, ParseOptions, damaged, encrypted, reading_page
from services.workers.parsing.plain import text_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sluice.documents.text import Block


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The document, page by page."""
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise _locked()
        pages = len(reader.pages)
        title = str(reader.metadata.title or "") if reader.metadata else ""
    except FileNotDecryptedError as error:
        raise _locked() from error
    except PyPdfError as error:
        raise damaged("The PDF cannot be opened: it is damaged or cut short.") from error
    return ParsedDocument(_blocks(reader, options), title=title.strip() or None, pages=pages)


def _locked() -> Exception:
    return encrypted("The PDF opens only with a password. Save a copy without one and upload that.")


def _blocks(reader: PdfReader, options: ParseOptions) -> Iterator[Block]:
    for number in options.wanted_pages(len(reader.pages)):
        with reading_page(number):
            text = reader.pages[number - 1].extract_text()
        yield from text_blocks(text.splitlines(), page=number)
