"""Markdown (CommonMark with tables): its blocks as they are marked up, the marks themselves left out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lxml import html
from markdown_it import MarkdownIt

from services.workers.parsing.charset import file_encoding, read_text
from services.workers.parsing.document import ParsedDocument, ParseOptions
from services.workers.parsing.html_blocks import blocks_of
from services.workers.parsing.plain import text_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sluice.documents.text import Block

_FRONT_MATTER: Final = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\n", re.DOTALL)
_TITLE: Final = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)


def parse(path: Path, options: ParseOptions) -> ParsedDocument:  # noqa: ARG001 - every parser has this signature
    """The blocks, front matter first as plain text."""
    encoding = file_encoding(path)
    text = read_text(path, encoding).replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    title = _TITLE.search(front[1]) if front else None
    body = text[front.end() :] if front else text
    return ParsedDocument(
        _blocks(front[1] if front else "", body), title=title[1] if title else None, encoding=encoding
    )


def _blocks(front_matter: str, body: str) -> Iterator[Block]:
    yield from text_blocks(front_matter.split("\n"))
    rendered = MarkdownIt("commonmark").enable("table").enable("strikethrough").render(body)
    if rendered.strip():
        yield from blocks_of(html.fragment_fromstring(rendered, create_parent="div"))
