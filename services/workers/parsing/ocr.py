"""Text of scans and pictures, by Tesseract, which an operator installs and switches on (`SLUICE_INGEST_OCR`)."""

from __future__ import annotations

import math
import shutil
from statistics import median
from typing import TYPE_CHECKING, Final

import pytesseract

from services.workers.parsing.document import damaged
from services.workers.parsing.layout import PrintedLine
from sluice.documents.text import Line

if TYPE_CHECKING:
    import pypdfium2
    from PIL.Image import Image

    from services.workers.parsing.document import ParseOptions
    from sluice.documents.text import Box

_DPI: Final = 200
_POINTS_PER_INCH: Final = 72
_MOST_PIXELS: Final = 40_000_000  # an A0 poster is rendered coarser
_LEAST_CONFIDENCE: Final = 20.0  # below, Tesseract read a stain


def is_installed() -> bool:
    """Whether this machine can read scans."""
    return shutil.which("tesseract") is not None


def read_page(page: pypdfium2.PdfPage, number: int, options: ParseOptions) -> list[PrintedLine]:
    """The lines on a page of a PDF, their boxes in points."""
    width, height = page.get_size()
    scale = min(_DPI / _POINTS_PER_INCH, math.sqrt(_MOST_PIXELS / (width * height)))
    image = page.render(scale=scale, grayscale=True).to_pil()
    return read_image(image, number, options, points_per_pixel=1 / scale)


def read_image(image: Image, number: int, options: ParseOptions, *, points_per_pixel: float = 1.0) -> list[PrintedLine]:
    """The lines in a picture, their boxes with the origin at its bottom left."""
    try:
        found = pytesseract.image_to_data(image, lang=options.ocr_languages, output_type=pytesseract.Output.DICT)
    except pytesseract.TesseractError as error:
        raise damaged(f"Tesseract cannot read page {number}: {error.message.strip().splitlines()[-1]}") from error
    boxes = _boxes_of_lines(found, image.height, points_per_pixel)
    if not boxes:
        return []
    # The heights of boxes vary with the letters in them; one size keeps paragraphs together.
    size = median(box[3] - box[1] for _, box in boxes)
    return [PrintedLine(Line(text, number, box), baseline=box[1], size=size) for text, box in boxes]


def _boxes_of_lines(found: dict[str, list[int | float | str]], height: int, scale: float) -> list[tuple[str, Box]]:
    """The words that Tesseract found, put together by line, each line with the box around its words."""
    lines: dict[tuple[object, ...], list[int]] = {}
    for index, text in enumerate(found["text"]):
        if str(text).strip() and float(found["conf"][index]) >= _LEAST_CONFIDENCE:
            place = tuple(found[level][index] for level in ("block_num", "par_num", "line_num"))
            lines.setdefault(place, []).append(index)
    return [
        (" ".join(str(found["text"][i]) for i in words), _around(found, words, height, scale))
        for words in lines.values()
    ]


def _around(found: dict[str, list[int | float | str]], words: list[int], height: int, scale: float) -> Box:
    left = min(float(found["left"][i]) for i in words)
    top = min(float(found["top"][i]) for i in words)
    right = max(float(found["left"][i]) + float(found["width"][i]) for i in words)
    bottom = max(float(found["top"][i]) + float(found["height"][i]) for i in words)
    x0, y0, x1, y1 = (round(value * scale, 2) for value in (left, height - bottom, right, height - top))
    return x0, y0, x1, y1
