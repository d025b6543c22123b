"""EPUB: the chapters of a book in reading order. Read with zipfile and lxml: the one kept library is under AGPL."""

from __future__ import annotations

import posixpath
import zipfile
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urldefrag

from lxml import etree

from services.workers.parsing.archive import check_archive
from services.workers.parsing.document import ParsedDocument, ParseOptions, damaged, encrypted, reading_page
from services.workers.parsing.html_blocks import blocks_of, parse_html
from services.workers.parsing.html_page import html_encoding
from sluice.documents.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sluice.documents.text import Block

_CONTAINER: Final = "META-INF/container.xml"
_ENCRYPTION: Final = "META-INF/encryption.xml"
_CHAPTER_TYPES: Final = frozenset({"application/xhtml+xml", "text/html"})
_NAMESPACES: Final = {
    "c": "urn:oasis:names:tc:opendocument:xmlns:container",
    "o": "http://www.idpf.org/2007/opf",
    "dc": "http://purl.org/dc/elements/1.1/",
}


def parse(path: Path, options: ParseOptions) -> ParsedDocument:
    """The book; a chapter counts as a page, the table of contents of the reading system is left out."""
    check_archive(path, options)
    with zipfile.ZipFile(path) as archive:
        if _ENCRYPTION in archive.namelist() and b"xhtml" in archive.read(_ENCRYPTION):
            raise encrypted("The book is protected against copying, so its text cannot be read.")
        package_path, package = _package(archive)
    chapters = _chapters(package, posixpath.dirname(package_path))
    title = package.findtext(".//dc:title", namespaces=_NAMESPACES)
    return ParsedDocument(_blocks(path, chapters, options), title=one_line(title or "") or None, pages=len(chapters))


def _package(archive: zipfile.ZipFile) -> tuple[str, etree._Element]:
    """The package document, which lists all parts, and its path."""
    try:
        container = _xml(archive.read(_CONTAINER))
        rootfile = container.find(".//c:rootfile", namespaces=_NAMESPACES)
        path = rootfile.get("full-path", "") if rootfile is not None else ""
        return path, _xml(archive.read(path))
    except (KeyError, etree.XMLSyntaxError) as error:
        raise damaged("The book has no readable list of its chapters.") from error


def _xml(content: bytes) -> etree._Element:
    return etree.fromstring(content, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))


def _chapters(package: etree._Element, folder: str) -> list[str]:
    """The paths of the chapters in reading order."""
    manifest = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(urldefrag(item.get("href", "")).url)))
        for item in package.iterfind(".//o:manifest/o:item", namespaces=_NAMESPACES)
        if item.get("media-type") in _CHAPTER_TYPES and "nav" not in (item.get("properties") or "").split()
    }
    spine = [item.get("idref") for item in package.iterfind(".//o:spine/o:itemref", namespaces=_NAMESPACES)]
    return [manifest[idref] for idref in spine if idref in manifest]


def _blocks(path: Path, chapters: list[str], options: ParseOptions) -> Iterator[Block]:
    with zipfile.ZipFile(path) as archive:
        for number in options.wanted_pages(len(chapters)):
            with reading_page(number):
                root = _chapter(archive, chapters[number - 1])
            if root is not None:
                yield from blocks_of(root, page=number)


def _chapter(archive: zipfile.ZipFile, path: str) -> etree._Element | None:
    try:
        content = archive.read(path)
    except KeyError as error:
        raise damaged(f"The book lists a chapter that is not in it: {path}.") from error
    return parse_html(content, html_encoding(content))
