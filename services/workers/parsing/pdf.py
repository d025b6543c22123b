"""PDF: lines with their boxes from the text layer, put together to paragraphs; pages without text go to OCR."""

from __future__ import annotations

import ctypes
import math
import re
from contextlib import contextmanager
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Final

import pypdfium2
import pypdfium2.raw as pdfium

from services.workers.parsing.document import ParsedDocument, ParseOptions, damaged, encrypted, reading_page
from services.workers.parsing.layout import Page, PrintedLine, blocks, outline_key, survey
from sluice.documents.text import Line, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sluice.documents.text import Block, Box

_NO_TITLES: Final = frozenset({"", "untitled", "untitled document"})
_TAIL_BYTES: Final = 65_536
_SURVEYED_PAGES: Final = 400
# PDFium ends a printed line by CR LF, or by this mark alone where a hyphen breaks a word.
_LINE: Final = re.compile("[^\r\n\x02\ufffe]+[\x02\ufffe]?")
_HYPHEN: Final = re.compile("[\x02\ufffe]$")
_SOFT_HYPHEN: Final = "\u00ad"
_FIXED_PITCH: Final = 1  # bit 1 of the flags of a font descriptor (ISO 32000-1, table 123)
_FORCE_BOLD: Final = 1 << 18
_BOLD_WEIGHT: Final = 600
_BOLD_NAME: Final = re.compile(r"bold|black|heavy|-bd|demi", re.IGNORECASE)
_FIXED_NAME: Final = re.compile(r"mono|courier|consol|typewriter|cmtt", re.IGNORECASE)
_COLUMN_GAP: Final = 2.0  # in sizes of the font: no justified text is set so wide
_FONT_NAME_BYTES: Final = 128


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The document, page by page; its outline, where it has one, says what is a heading."""
    document = _opened(path)
    title = one_line(document.get_metadata_value("Title"))
    return ParsedDocument(
        _blocks(document, options),
        title=title if title.lower() not in _NO_TITLES else None,
        pages=len(document),
    )


def _opened(path: Path) -> pypdfium2.PdfDocument:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        is_whole = b"startxref" in file.read()
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise encrypted("The PDF opens only with a password. Save a copy without one and upload that.") from error
        raise damaged("The PDF cannot be opened: it is damaged or cut short.") from error
    # PDFium mends what it can, which would pass off the part of a document as the whole.
    if not is_whole:
        raise damaged("The PDF is cut short: its end is missing. Upload it again.")
    return document


def _blocks(document: pypdfium2.PdfDocument, options: ParseOptions) -> Iterator[Block]:
    count = len(document)
    surveyed = islice(options.wanted_pages(count), _SURVEYED_PAGES)
    usual = survey(_text_page(document, number - 1) for number in surveyed)
    pages = (_read_page(document, number - 1, options) for number in options.wanted_pages(count))
    yield from blocks(pages, usual, _outline(document))
    document.close()


def _outline(document: pypdfium2.PdfDocument) -> dict[int, dict[str, int]]:
    """The level of each heading of the outline, by page number and `outline_key`."""
    outline: dict[int, dict[str, int]] = {}
    for bookmark in document.get_toc():
        destination = bookmark.get_dest()
        index = destination.get_index() if destination is not None else None
        if index is not None and (key := outline_key(bookmark.get_title())):
            outline.setdefault(index + 1, {})[key] = bookmark.level + 1
    return outline


def _read_page(document: pypdfium2.PdfDocument, index: int, options: ParseOptions) -> Page:
    """The page by its text layer, or by its looks if it has none and scans are read."""
    page = _text_page(document, index)
    if page.lines or not options.ocr:
        return page
    from services.workers.parsing import ocr  # noqa: PLC0415 - loads numpy, which documents with text need not wait for

    if not ocr.is_installed():
        return page
    with _loaded(document, index) as loaded, reading_page(page.number):
        return Page(page.number, page.height, ocr.read_page(loaded, page.number, options))


def _text_page(document: pypdfium2.PdfDocument, index: int) -> Page:
    with reading_page(index + 1), _loaded(document, index) as page:
        textpage = page.get_textpage()
        try:
            lines = list(_lines(textpage, index + 1))
        finally:
            textpage.close()
        return Page(index + 1, page.get_height(), lines)


@contextmanager
def _loaded(document: pypdfium2.PdfDocument, index: int) -> Iterator[pypdfium2.PdfPage]:
    """The page, given back to PDFium at once: three hundred open ones are hundreds of megabytes."""
    try:
        page = document[index]
    except pypdfium2.PdfiumError as error:
        raise damaged(f"Page {index + 1} of the PDF cannot be read: the file is damaged.") from error
    try:
        yield page
    finally:
        page.close()


def _lines(textpage: pypdfium2.PdfTextPage, number: int) -> Iterator[PrintedLine]:
    text = textpage.get_text_range() if textpage.count_chars() else ""
    offset_of = _character_offsets(textpage, text)
    for match in _LINE.finditer(text):
        cleaned = _HYPHEN.sub(_SOFT_HYPHEN, match[0])
        if cleaned.strip():
            start, end = offset_of(match.start()), offset_of(match.end() - 1) + 1
            yield _printed(textpage, cleaned, number, start, end)


def _character_offsets(textpage: pypdfium2.PdfTextPage, text: str) -> Callable[[int], int]:
    """From an offset in the text to PDFium's index of the character; surrogate pairs set them apart."""
    if textpage.count_chars() == len(text):
        return lambda offset: offset
    utf16_offsets = list(accumulate((1 + (character > "\uffff") for character in text), initial=0))
    return lambda offset: int(pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, utf16_offsets[offset]))


def _rectangles(textpage: pypdfium2.PdfTextPage, start: int, end: int) -> list[Box]:
    """The rectangles of these characters from left to right, in points from the bottom left of the page."""
    count = pdfium.FPDFText_CountRects(textpage, start, end - start)
    return sorted(textpage.get_rect(i) for i in range(count)) or [textpage.get_charbox(start)]


def _around(rectangles: list[Box]) -> Box:
    lefts, bottoms, rights, tops = zip(*rectangles, strict=True)
    return round(min(lefts), 2), round(min(bottoms), 2), round(max(rights), 2), round(max(tops), 2)


def _printed(textpage: pypdfium2.PdfTextPage, text: str, number: int, start: int, end: int) -> PrintedLine:
    """The line with its print, which its first, middle and last visible character show well enough."""
    rectangles = _rectangles(textpage, start, end)
    probes = sorted({start, (start + end - 1) // 2, end - 2 if end - start > 1 else start})
    fonts = [_font(textpage, index) for index in probes]
    size = max(_size(textpage, index) for index in probes)
    gaps = [right[0] - left[2] for left, right in pairwise(rectangles)]
    return PrintedLine(
        Line(text, number, _around(rectangles)),
        baseline=_baseline(textpage, start),
        size=size,
        bold=all(bold for bold, _ in fonts),
        fixed_pitch=all(fixed for _, fixed in fonts),
        in_columns=max(gaps, default=0.0) > _COLUMN_GAP * size,
    )


def _size(textpage: pypdfium2.PdfTextPage, index: int) -> float:
    matrix = pdfium.FS_MATRIX()
    scale = 1.0
    if pdfium.FPDFText_GetMatrix(textpage, index, matrix):
        scale = math.hypot(matrix.c, matrix.d) or 1.0
    return float(pdfium.FPDFText_GetFontSize(textpage, index)) * scale


def _baseline(textpage: pypdfium2.PdfTextPage, index: int) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDFText_GetCharOrigin(textpage, index, x, y)
    return y.value


def _font(textpage: pypdfium2.PdfTextPage, index: int) -> tuple[bool, bool]:
    """Whether the character's font is bold, and whether all its characters are equally wide."""
    flags = ctypes.c_int()
    buffer = ctypes.create_string_buffer(_FONT_NAME_BYTES)
    pdfium.FPDFText_GetFontInfo(textpage, index, buffer, _FONT_NAME_BYTES, flags)
    name = buffer.value.decode("latin-1")
    bold = bool(flags.value & _FORCE_BOLD or _BOLD_NAME.search(name))
    bold = bold or pdfium.FPDFText_GetFontWeight(textpage, index) >= _BOLD_WEIGHT
    return bold, bool(flags.value & _FIXED_PITCH or _FIXED_NAME.search(name))
