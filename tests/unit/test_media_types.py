from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from sluice.documents import media_types
from sluice.documents.media_types import safe_name, sniff
from sluice.errors import Invalid, UnsupportedType
from tests import files


def type_of(content: bytes, name: str) -> str:
    return sniff(io.BytesIO(content), name)


def type_of_file(path: Path, name: str | None = None) -> str:
    with path.open("rb") as file:
        return sniff(file, name or path.name)


def test_documents_are_known_by_their_content(tmp_path: Path) -> None:
    made = {
        media_types.PDF: files.pdf_document(tmp_path / "a.pdf", [["Text"]]),
        media_types.DOCX: files.docx_document(tmp_path / "a.docx"),
        media_types.PPTX: files.pptx_document(tmp_path / "a.pptx", {"Title": "Text"}),
        media_types.XLSX: files.xlsx_document(tmp_path / "a.xlsx", [("A", "B")]),
        media_types.EPUB: files.epub_book(tmp_path / "a.epub", {"c.xhtml": "<p>Text</p>"}),
        media_types.PNG: files.png_image(tmp_path / "a.png"),
    }

    assert {mime: type_of_file(path) for mime, path in made.items()} == {mime: mime for mime in made}
    assert {mime: type_of_file(path, "nameless") for mime, path in made.items()} == {mime: mime for mime in made}


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.txt", media_types.PLAIN),
        ("a.MD", media_types.MARKDOWN),
        ("a.csv", media_types.CSV),
        ("a.json", media_types.JSON),
        ("a.eml", media_types.EML),
        ("a.htm", media_types.HTML),
        ("README", media_types.PLAIN),
        ("notes.log", media_types.PLAIN),
    ],
)
def test_kinds_of_text_are_told_apart_by_name(name: str, mime: str) -> None:
    assert type_of("Привет, {мир}\n".encode(), name) == mime


def test_a_nameless_page_is_known_by_its_first_tag() -> None:
    assert type_of(b"\n<!DOCTYPE html><p>Hi", "page") == media_types.HTML


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1251", "koi8-r", "cp866"]
)
def test_russian_text_is_text_in_every_encoding(encoding: str) -> None:
    assert type_of(files.RUSSIAN.encode(encoding), "a.txt") == media_types.PLAIN


def test_a_character_cut_by_the_end_of_what_is_read_is_no_damage() -> None:
    assert type_of("я".encode() * 40_000 + b"!", "a.txt") == media_types.PLAIN
    assert type_of(b"!" + "я".encode() * 40_000, "a.txt") == media_types.PLAIN


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"%PDF-1.7 rest", "report.docx", "the content is pdf"),
        (b"%PDF-1.7 rest", "report.txt", "the content is pdf"),
        (b"plain words", "report.pdf", "the content is not pdf"),
        (b"plain words", "photo.png", "the content is not png"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "old.doc", "Office document of before 2007"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "locked.docx", "locked with a password"),
        (b"{\\rtf1 text}", "a.rtf", "an RTF document"),
        (b"\x7fELF\x02\x01\x01\x00", "tool", "a program"),
        (b"\x1f\x8b\x08\x00\x00", "a.gz", "a gzip archive"),
        (b"\x00\x01\x02\x03" * 20, "blob.bin", "of no known type"),
        (b"\x00\x01\x02\x03" * 20, "blob.txt", "of no known type"),
    ],
)
def test_other_and_lying_types_are_refused_with_what_they_are(content: bytes, name: str, reason: str) -> None:
    with pytest.raises(UnsupportedType) as refusal:
        type_of(content, name)

    assert reason in refusal.value.detail
    assert "Accepted are pdf, docx, pptx, xlsx, html, epub, md, txt, csv, json, eml" in refusal.value.detail


def test_a_zip_that_is_called_a_pdf_is_refused(tmp_path: Path) -> None:
    docx = files.docx_document(tmp_path / "a.docx")

    with pytest.raises(UnsupportedType, match="the content is docx"):
        type_of_file(docx, "report.pdf")


def test_an_archive_that_is_no_document_is_refused(tmp_path: Path) -> None:
    archive = files.zip_archive(tmp_path / "a.zip", {"readme.txt": "hello"})

    with pytest.raises(UnsupportedType, match="zip archive of no known kind"):
        type_of_file(archive)


def test_a_document_cut_short_is_taken_at_its_word(tmp_path: Path) -> None:
    half = files.truncated(tmp_path / "half.docx", files.docx_document(tmp_path / "whole.docx"))

    assert type_of_file(half) == media_types.DOCX
    with pytest.raises(UnsupportedType, match="cut short or damaged"):
        type_of_file(half, "half.zip")


def test_an_archive_that_claims_an_endless_list_of_contents_is_not_believed(tmp_path: Path) -> None:
    padding = b"\0" * (9 * 1024**2)
    end = b"PK\x05\x06" + bytes(4) + b"\x01\x00\x01\x00" + len(padding).to_bytes(4, "little") + bytes(4) + b"\0\0"

    with pytest.raises(UnsupportedType, match="cut short or damaged"):
        type_of(b"PK\x03\x04" + padding + end, "a.zip")


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(Invalid) as refusal:
        type_of(b"", "a.txt")

    assert refusal.value.code == "empty_file"


def test_the_file_can_be_read_from_its_start_afterwards() -> None:
    file = io.BytesIO(b"some text")

    sniff(file, "a.txt")

    assert file.tell() == 0


def test_a_picture_may_be_called_by_another_picture_type() -> None:
    assert type_of(files.bytes_of(Image.new("L", (4, 4)), "PNG"), "photo.jpg") == media_types.PNG


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\план.docx", "план.docx"),
        ("a\x00b\nc.txt", "abc.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("  spaced   name.txt  ", "spaced name.txt"),
        ("", "document"),
        ("..", "document"),
        ("a/..", "document"),
        ("dir/", "document"),
        ("e\u0301.txt", "é.txt"),
    ],
)
def test_a_name_is_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_long_name_is_cut_but_keeps_its_suffix() -> None:
    name = safe_name("я" * 500 + ".docx")

    assert name.endswith("я.docx")
    assert 250 <= len(name.encode()) <= 255
