"""Make the DOCX, PPTX, XLSX and Markdown samples out of chapters of the Debian FAQ.

Run it from the checkout: `PYTHONPATH=. python samples/make_samples.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import docx
import openpyxl
import pptx

from services.workers.parsing.html_page import html_encoding, page_blocks
from sluice.documents.text import Block, BlockKind

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER: Final = Path(__file__).parent
_LANGUAGES: Final = ("en", "ru")
_AUTHOR: Final = "Debian FAQ authors"
_MADE: Final = datetime(2022, 5, 31, tzinfo=UTC)  # of the edition that the chapters come from
_SLIDE_ITEMS: Final = 4
_SLIDE_CHARACTERS: Final = 250
_HEADERS: Final = {"en": ("Question", "Answer"), "ru": ("Вопрос", "Ответ")}
_DOCX_STYLES: Final = {BlockKind.LIST_ITEM: "List Bullet", BlockKind.CODE: "No Spacing"}


def main() -> None:
    """Write the samples beside their sources."""
    for language in _LANGUAGES:
        make_docx("pkg-basics", language)
        make_pptx("choosing", language)
        make_xlsx("choosing", language)
        make_markdown("kernel", language)


def make_docx(chapter: str, language: str) -> None:
    """The whole chapter as a text document."""
    document = docx.Document()
    document.core_properties.author = _AUTHOR
    document.core_properties.created = document.core_properties.modified = _MADE
    title, blocks = _chapter(chapter, language)
    document.core_properties.title = title
    for block in blocks:
        if block.kind is BlockKind.HEADING:
            document.add_heading(block.text, level=block.level or 1)
        else:
            document.add_paragraph(block.text, style=_DOCX_STYLES.get(block.kind))
    document.save(str(_target(chapter, language, "docx")))


def make_pptx(chapter: str, language: str) -> None:
    """A slide for each question, with the beginnings of its first paragraphs; the first paragraph in the notes."""
    presentation = pptx.Presentation()
    presentation.core_properties.author = _AUTHOR
    presentation.core_properties.title = _chapter(chapter, language)[0]
    for question, answer in _questions(chapter, language):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = question
        texts = [block.text for block in answer]
        slide.placeholders[1].text = "\n".join(text[:_SLIDE_CHARACTERS] for text in texts[:_SLIDE_ITEMS])
        slide.notes_slide.notes_text_frame.text = texts[0]
    presentation.save(str(_target(chapter, language, "pptx")))


def make_xlsx(chapter: str, language: str) -> None:
    """A row for each question and its answer."""
    workbook = openpyxl.Workbook()
    workbook.properties.creator = _AUTHOR
    workbook.properties.title = _chapter(chapter, language)[0]
    workbook.remove(workbook.worksheets[0])
    sheet = workbook.create_sheet("FAQ")
    sheet.append(_HEADERS[language])
    for question, answer in _questions(chapter, language):
        sheet.append((question, "\n".join(block.text for block in answer)))
    workbook.save(_target(chapter, language, "xlsx"))


def make_markdown(chapter: str, language: str) -> None:
    """The whole chapter as Markdown."""
    _, blocks = _chapter(chapter, language)
    paragraphs = [_marked_up(block) for block in blocks]
    _target(chapter, language, "md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def _marked_up(block: Block) -> str:
    match block.kind:
        case BlockKind.HEADING:
            return f"{'#' * (block.level or 1)} {block.text}"
        case BlockKind.LIST_ITEM:
            return f"* {block.text}"
        case BlockKind.CODE:
            return f"```\n{block.text}\n```"
        case _:
            return block.text


def _questions(chapter: str, language: str) -> Iterator[tuple[str, list[Block]]]:
    """The questions of a chapter, each with the blocks of its answer."""
    question = ""
    for is_heading, group in groupby(_chapter(chapter, language)[1], key=lambda block: block.kind is BlockKind.HEADING):
        blocks = list(group)
        if is_heading:
            question = blocks[-1].text
        elif question:
            yield question, blocks


def _chapter(chapter: str, language: str) -> tuple[str, list[Block]]:
    content = (_FOLDER / f"debian-faq.{chapter}.{language}.html").read_bytes()
    title, blocks = page_blocks(content, html_encoding(content))
    return title or chapter, blocks


def _target(chapter: str, language: str, suffix: str) -> Path:
    return _FOLDER / f"debian-faq.{chapter}.{language}.{suffix}"


if __name__ == "__main__":
    main()
