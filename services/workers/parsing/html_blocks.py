"""The blocks of an HTML tree, as its markup names them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lxml import etree, html

from services.workers.parsing.tables import rows_as_blocks
from sluice.documents.text import Block, BlockKind, normalize, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Never text for a reader.
_UNTEXTUAL: Final = ("script", "style", "noscript", "template", "svg", "iframe", "object", "canvas", "audio", "video")
# Text, but not of this page.
_UNREAD: Final = frozenset(
    {"head", "nav", "footer", "button", "select", "option", "textarea", "input", "dialog", "menu", *_UNTEXTUAL}
)
_UNREAD_ROLES: Final = frozenset({"navigation", "banner", "contentinfo", "search", "complementary", "menu", "dialog"})
_UNREAD_CLASSES: Final = re.compile(
    r"\b(nav|navbar|navigation|navheader|navfooter|breadcrumbs?|sidebar|sphinxsidebar|toc|menu|footer|cookies?|related"
    r"|share|social|skip-?link|advert(isement)?)\b",
    re.IGNORECASE,
)
# A list or box in which nearly all the text is links leads elsewhere.
_LINK_BOXES: Final = frozenset({"ul", "ol", "dl", "table", "div"})
_FEWEST_LINKS: Final = 3
_LINK_SHARE: Final = 0.8
# If less than this remains without what looks like navigation, the page is made of it (an index, say): keep it all.
_MAIN_SHARE: Final = 0.25
_WHOLE_PAGE: Final = frozenset({"html", "body"})
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_INLINE: Final = frozenset(
    """
    a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark math output q ruby rb rp rt s
    samp small span strike strong sub sup time tt u var wbr
    """.split()
)
_PILCROW: Final = " ¶"  # the link that documentation tools hang on headings


def parse_html(content: bytes, encoding: str) -> html.HtmlElement | None:
    """The tree of a page without scripts and the like, nothing fetched; None if there is no element in it."""
    parser = html.HTMLParser(encoding=encoding, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(content, parser=parser)
    except etree.ParserError:
        return None
    except etree.XMLSyntaxError as error:
        if getattr(error, "code", None) == etree.ErrorTypes.ERR_NO_MEMORY:  # the stubs do not know it
            raise MemoryError("libxml2 ran out of memory.") from error
        raise
    etree.strip_elements(root, *_UNTEXTUAL, with_tail=False)
    return root


def main_blocks(root: html.HtmlElement) -> list[Block]:
    """The blocks of a web page without its navigation, unless there is little else on it."""
    main = blocks_of(root, unread=_navigation(root))
    if sum(len(block.text) for block in main) >= len(one_line(root.text_content())) * _MAIN_SHARE:
        return main
    return blocks_of(root)


def _navigation(root: html.HtmlElement) -> frozenset[html.HtmlElement]:
    """The elements that lead elsewhere: by role, by class, or because nearly all their text is links."""
    elements = [element for element in root.iter() if isinstance(element.tag, str) and element.tag not in _WHOLE_PAGE]
    return frozenset(element for element in elements if _is_named_navigation(element)) | _link_boxes(elements)


def _is_named_navigation(element: html.HtmlElement) -> bool:
    return element.get("role") in _UNREAD_ROLES or bool(_UNREAD_CLASSES.search(element.get("class", "")))


def _link_boxes(elements: Sequence[html.HtmlElement]) -> frozenset[html.HtmlElement]:
    """The lists and boxes of links, told in one pass from the innermost elements outwards."""
    texts: Counter[html.HtmlElement] = Counter()
    linked: Counter[html.HtmlElement] = Counter()
    links: Counter[html.HtmlElement] = Counter()
    for element in reversed(elements):
        texts[element] += len((element.text or "").strip())
        if element.tag == "a" and element.get("href"):
            linked[element], links[element] = texts[element], 1
        parent = element.getparent()
        if parent is not None:
            texts[parent] += texts[element] + len((element.tail or "").strip())
            linked[parent] += linked[element]
            links[parent] += links[element]
    return frozenset(
        element
        for element in elements
        if element.tag in _LINK_BOXES
        and links[element] >= _FEWEST_LINKS
        and linked[element] >= texts[element] * _LINK_SHARE
    )


def blocks_of(
    root: html.HtmlElement, *, page: int | None = None, unread: frozenset[html.HtmlElement] = frozenset()
) -> list[Block]:
    """The headings, paragraphs, list items, table rows and code under this element, without the `unread` ones in it."""
    walk = _Walk(page, unread)
    walk.through(root, BlockKind.PARAGRAPH)
    return walk.blocks


@dataclass(slots=True)
class _Walk:
    """A walk through a tree; inline text gathers in `pending` until the block that it belongs to ends."""

    page: int | None
    unread: frozenset[html.HtmlElement]
    blocks: list[Block] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    def through(self, element: html.HtmlElement, kind: BlockKind) -> None:
        """Read the element; text in it without markup of its own is of this kind."""
        self.pending.append(element.text or "")
        for child in element:
            self._enter(child, kind)
            self.pending.append(child.tail or "")
        if element.tag not in _INLINE:
            self._end_text(kind)

    def _enter(self, element: html.HtmlElement, kind: BlockKind) -> None:
        tag = element.tag
        if not isinstance(tag, str) or tag in _UNREAD or element in self.unread or _is_hidden(element):
            return
        if tag == "br":
            self.pending.append("\n")
        elif tag in _INLINE:
            self.through(element, kind)
        else:
            self._end_text(kind)
            self._read_block(element, BlockKind.LIST_ITEM if tag == "li" else kind)

    def _read_block(self, element: html.HtmlElement, kind: BlockKind) -> None:
        tag = str(element.tag)
        if tag in _HEADINGS:
            heading = one_line(element.text_content()).rstrip(_PILCROW)
            self._add(BlockKind.HEADING, heading, level=_HEADINGS[tag])
        elif tag == "pre":
            self._add(BlockKind.CODE, normalize(element.text_content()).strip("\n"))
        elif tag == "table" and _holds_values(element):
            self.blocks += rows_as_blocks(_rows(element), page=self.page)
        else:
            self.through(element, kind)

    def _end_text(self, kind: BlockKind) -> None:
        self._add(kind, one_line("".join(self.pending)))
        self.pending.clear()

    def _add(self, kind: BlockKind, text: str, *, level: int | None = None) -> None:
        if text:
            self.blocks.append(Block(kind, text, level=level, page=self.page))


def _is_hidden(element: html.HtmlElement) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.get("hidden") is not None or "display:none" in style or "visibility:hidden" in style


def _holds_values(table: html.HtmlElement) -> bool:
    """Whether the table is one, rather than the layout of a page: no blocks of a page within."""
    return table.find(".//table") is None and not any(
        table.find(f".//{tag}") is not None for tag in (*_HEADINGS, "pre")
    )


def _rows(table: html.HtmlElement) -> Iterator[Sequence[str]]:
    for row in table.iter("tr"):
        yield [cell.text_content() for cell in row if cell.tag in {"td", "th"}]
