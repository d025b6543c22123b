"""PPTX: slides as pages, their titles as headings, their notes at the end of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pptx
from pptx.shapes.graphfrm import GraphicFrame
from pptx.shapes.group import GroupShape

from services.workers.parsing.archive import check_archive
from services.workers.parsing.document import ParsedDocument, ParseOptions, reading_page
from services.workers.parsing.tables import rows_as_blocks
from sluice.documents.text import Block, BlockKind, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pptx.presentation import Presentation
    from pptx.shapes.base import BaseShape
    from pptx.slide import Slide


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The presentation, slide by slide."""
    check_archive(path, options)
    presentation = pptx.Presentation(str(path))
    return ParsedDocument(
        _blocks(presentation, options),
        title=one_line(presentation.core_properties.title or "") or None,
        pages=len(presentation.slides),
    )


def _blocks(presentation: Presentation, options: ParseOptions) -> Iterator[Block]:
    for page in options.wanted_pages(len(presentation.slides)):
        with reading_page(page):
            yield from _slide(presentation.slides[page - 1], page)


def _slide(slide: Slide, page: int) -> Iterator[Block]:
    title = slide.shapes.title
    if title is not None and (text := one_line(title.text_frame.text)):
        yield Block(BlockKind.HEADING, text, level=1, page=page)
    yield from _shapes((shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id), page)
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        yield from _paragraphs(notes.text, BlockKind.PARAGRAPH, page)


def _shapes(shapes: Iterable[BaseShape], page: int) -> Iterator[Block]:
    for shape in shapes:
        if isinstance(shape, GroupShape):
            yield from _shapes(shape.shapes, page)
        elif isinstance(shape, GraphicFrame) and shape.has_table:
            yield from rows_as_blocks(([cell.text for cell in row.cells] for row in shape.table.rows), page=page)
        elif shape.has_text_frame:
            yield from _paragraphs(str(getattr(shape, "text", "")), BlockKind.LIST_ITEM, page)


def _paragraphs(text: str, kind: BlockKind, page: int) -> Iterator[Block]:
    paragraphs = [line for raw in text.splitlines() if (line := one_line(raw))]
    for paragraph in paragraphs:
        yield Block(kind if len(paragraphs) > 1 else BlockKind.PARAGRAPH, paragraph, page=page)
