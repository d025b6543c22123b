"""HTML: the text of a page in its structure, without scripts and navigation."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Final

from services.workers.parsing.charset import detect_encoding
from services.workers.parsing.document import ParsedDocument, ParseOptions
from services.workers.parsing.html_blocks import main_blocks, parse_html
from sluice.documents.encodings import unicode_encoding
from sluice.documents.text import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from lxml.html import HtmlElement

    from sluice.documents.text import Block

_DECLARED: Final = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_DECLARED_WITHIN: Final = 4096
_SAMPLE_BYTES: Final = 262_144


def parse(path: Path, options: ParseOptions) -> ParsedDocument:  # noqa: ARG001 - every parser has this signature
    """The page, one block for each heading, paragraph, list item, table row and piece of code."""
    content = path.read_bytes()
    encoding = html_encoding(content)
    title, blocks = page_blocks(content, encoding)
    return ParsedDocument(iter(blocks), title=title, encoding=encoding)


def page_blocks(content: bytes, encoding: str) -> tuple[str | None, list[Block]]:
    """The title and the blocks of a web page."""
    root = parse_html(content.decode(encoding, "replace").encode(), "utf-8")
    if root is None:
        return None, []
    title = _title(root)
    return title, main_blocks(root)


def html_encoding(content: bytes) -> str:
    """The encoding that the bytes prove, else the one the page declares, else the likeliest."""
    if proven := unicode_encoding(content[:_SAMPLE_BYTES]):
        return proven
    declared = _DECLARED.search(content[:_DECLARED_WITHIN])
    if declared and (known := _known(declared[1].decode("ascii"))):
        return known
    return detect_encoding(content[:_SAMPLE_BYTES])


def _known(name: str) -> str | None:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


def _title(root: HtmlElement) -> str | None:
    title = root.find(".//title")
    return (one_line(title.text_content()) or None) if title is not None else None
