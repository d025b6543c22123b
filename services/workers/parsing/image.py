"""Pictures and scans (PNG, JPEG, TIFF): what OCR reads in them; a frame of a TIFF is a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageSequence, UnidentifiedImageError

from services.workers.parsing import ocr
from services.workers.parsing.document import ParsedDocument, ParseOptions, damaged, no_text, reading_page, too_complex
from services.workers.parsing.layout import Page, blocks, survey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The picture's text; a pixel counts as a point."""
    if not options.ocr:
        raise no_text(
            "A picture has text only for OCR, which is switched off here: set SLUICE_INGEST_OCR=true and install "
            "Tesseract."
        )
    if not ocr.is_installed():
        raise no_text("Pictures are to be read by OCR, but Tesseract is not installed on this worker.")
    try:
        image = Image.open(path)
    except (UnidentifiedImageError, OSError) as error:
        raise damaged("The picture cannot be opened: it is damaged or cut short.") from error
    except Image.DecompressionBombError as error:
        raise too_complex("The picture has more pixels than can be read.") from error
    pages = _pages(image, options)
    return ParsedDocument(blocks(pages, survey(()), {}), pages=getattr(image, "n_frames", 1))


def _pages(image: Image.Image, options: ParseOptions) -> Iterator[Page]:
    for number, frame in enumerate(ImageSequence.Iterator(image), start=1):
        if number in options.skip_pages:
            continue
        with reading_page(number):
            yield _page(frame, number, options)


def _page(frame: Image.Image, number: int, options: ParseOptions) -> Page:
    try:
        grey = frame.convert("L")
    except OSError as error:
        raise damaged(f"Picture {number} of the file is damaged or cut short.") from error
    return Page(number, grey.height, ocr.read_image(grey, number, options))
