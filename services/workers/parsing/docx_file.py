"""DOCX: headings, paragraphs, lists and tables in the order of the document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import docx
from docx.oxml.ns import qn
from docx.table import Table
from docx.text.paragraph import Paragraph

from services.workers.parsing.archive import check_archive
from services.workers.parsing.document import ParsedDocument, ParseOptions
from services.workers.parsing.tables import rows_as_blocks
from sluice.documents.text import Block, BlockKind, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from docx.document import Document

_HEADING_STYLE: Final = re.compile(r"^heading (\d)$", re.IGNORECASE)
_TITLE_STYLES: Final = frozenset({"title"})
_BREAKS: Final = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_TEXT: Final = qn("w:t")
# An older rendering of what stands beside it: reading both would double the text.
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The document's body; what tracked changes inserted is read, what they deleted is not."""
    check_archive(path, options)
    document = docx.Document(str(path))
    return ParsedDocument(_blocks(document), title=one_line(document.core_properties.title or "") or None)


def _blocks(document: Document) -> Iterator[Block]:
    for content in document.iter_inner_content():
        if isinstance(content, Paragraph):
            yield from _paragraph(content)
        elif isinstance(content, Table):
            yield from rows_as_blocks(_rows(content))


def _paragraph(paragraph: Paragraph) -> Iterator[Block]:
    text = one_line(_text(paragraph._p))  # noqa: SLF001 - `Paragraph.text` leaves out inserted and boxed text
    if not text:
        return
    if level := _heading_level(paragraph):
        yield Block(BlockKind.HEADING, text, level=level)
    elif _is_listed(paragraph):
        yield Block(BlockKind.LIST_ITEM, text)
    else:
        yield Block(BlockKind.PARAGRAPH, text)


def _text(element: Any) -> str:
    """What the reader sees of an element of WordprocessingML."""
    if element.tag == _FALLBACK:
        return ""
    if element.tag == _TEXT:
        return element.text or ""
    own = _BREAKS.get(str(element.tag), "")
    return own + "".join(_text(child) for child in element)


def _style_name(paragraph: Paragraph) -> str:
    return (paragraph.style.name or "").lower() if paragraph.style is not None else ""


def _heading_level(paragraph: Paragraph) -> int | None:
    """The level by style or by outline level, 1 at the top; None for text."""
    name = _style_name(paragraph)
    if name in _TITLE_STYLES:
        return 1
    if match := _HEADING_STYLE.match(name):
        return int(match[1])
    outline = paragraph._p.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")  # noqa: SLF001 - python-docx has no name for it
    value = outline.get(qn("w:val")) if outline is not None else None
    return int(value) + 1 if value is not None and value in "012345678" else None


def _is_listed(paragraph: Paragraph) -> bool:
    properties = paragraph._p.pPr  # noqa: SLF001 - python-docx has no name for numbering
    return _style_name(paragraph).startswith("list") or (properties is not None and properties.numPr is not None)


def _rows(table: Table) -> Iterator[Sequence[str]]:
    for row in table.rows:
        # A merged cell comes once for every column that it spans.
        cells = {id(cell._tc): cell._tc for cell in row.cells}  # noqa: SLF001 - identity of a cell
        yield [_text(cell) for cell in cells.values()]
