"""Reading one document in another way than the settings say: pages left out, another parser."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from services.workers.parsing.document import ParseOptions
from services.workers.parsing.sandbox import ParseReport, parse_document
from sluice.documents import media_types
from sluice.documents.parsers import OTHER_PARSERS, PAGED
from sluice.documents.reading import ReadingOptions
from sluice.documents.text import Block
from sluice.errors import DocumentUnreadable, Invalid
from sluice.settings import IngestSettings
from tests import files

PAGES = [[f"This is what page {number} says."] for number in range(1, 5)]


def read(path: Path, mime: str, **wanted: object) -> tuple[ParseReport, list[Block]]:
    options = ParseOptions.of(IngestSettings(), ReadingOptions.of(dict(wanted), mime))
    output = path.with_suffix(".jsonl")
    report = parse_document(path, mime, options, output=output)
    return report, [Block.from_json(line) for line in output.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def paged(tmp_path: Path) -> dict[str, Path]:
    """A document of at least two pages for each type that has pages and needs no OCR."""
    workbook = files.xlsx_document(tmp_path / "a.xlsx", [("Name", "Page"), ("one", "page 1")])
    return {
        media_types.PDF: files.pdf_document(tmp_path / "a.pdf", PAGES),
        media_types.PPTX: files.pptx_document(
            tmp_path / "a.pptx", {f"Slide {number}": f"page {number}" for number in range(1, 5)}
        ),
        media_types.EPUB: files.epub_book(
            tmp_path / "a.epub", {f"{number}.xhtml": f"<p>page {number}</p>" for number in range(1, 5)}
        ),
        media_types.XLSX: workbook,
    }


@pytest.mark.parametrize("mime", [media_types.PDF, media_types.PPTX, media_types.EPUB])
def test_pages_that_are_to_be_skipped_are_left_out_and_the_others_keep_their_numbers(
    paged: dict[str, Path], mime: str
) -> None:
    report, blocks = read(paged[mime], mime, skip_pages=[2, 3, 99])

    assert {block.page for block in blocks} == {1, 4}
    assert report.pages == 4


def test_a_document_without_any_page_left_has_no_text(paged: dict[str, Path]) -> None:
    with pytest.raises(DocumentUnreadable) as refusal:
        read(paged[media_types.XLSX], media_types.XLSX, skip_pages=[1])

    assert refusal.value.code == "no_text"


def test_another_parser_reads_the_same_words_of_a_pdf(paged: dict[str, Path]) -> None:
    usual, _ = read(paged[media_types.PDF], media_types.PDF)
    report, blocks = read(paged[media_types.PDF], media_types.PDF, parser="pypdf", skip_pages=[1])

    assert [(block.page, block.text) for block in blocks] == [
        (number, f"This is what page {number} says.") for number in (2, 3, 4)
    ]
    assert report.pages == usual.pages == 4


def test_the_other_parser_of_a_pdf_asks_for_a_password_too(tmp_path: Path) -> None:
    with pytest.raises(DocumentUnreadable) as refusal:
        read(files.encrypted_pdf(tmp_path / "a.pdf"), media_types.PDF, parser="pypdf")

    assert refusal.value.code == "encrypted"


def test_the_other_parser_says_that_a_pdf_is_damaged(tmp_path: Path) -> None:
    broken = tmp_path / "a.pdf"
    broken.write_bytes(b"%PDF-1.7\nnothing else")
    with pytest.raises(DocumentUnreadable) as refusal:
        read(broken, media_types.PDF, parser="pypdf")

    assert refusal.value.code == "damaged"


def test_markup_can_be_read_as_it_stands(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_text("<p>One <b>word</b></p>", encoding="utf-8")

    _, usual = read(page, media_types.HTML)
    _, plain = read(page, media_types.HTML, parser="plain")

    assert [block.text for block in usual] == ["One word"]
    assert [block.text for block in plain] == ["<p>One <b>word</b></p>"]


def test_a_failure_on_a_page_names_the_page(tmp_path: Path) -> None:
    book = files.epub_book(tmp_path / "a.epub", {"1.xhtml": "<p>One</p>", "2.xhtml": "<p>Two</p>"})
    with zipfile.ZipFile(book) as whole:
        kept = {name: whole.read(name).decode() for name in whole.namelist() if not name.endswith("2.xhtml")}
    files.zip_archive(tmp_path / "b.epub", kept)

    with pytest.raises(DocumentUnreadable) as refusal:
        read(tmp_path / "b.epub", media_types.EPUB)

    assert (refusal.value.code, refusal.value.facts) == ("damaged", {"page": 2})


@pytest.mark.parametrize("mime", sorted(media_types.ACCEPTED))
def test_an_option_is_taken_for_the_types_that_it_fits_and_refused_for_the_others(mime: str) -> None:
    for parser, types in OTHER_PARSERS.items():
        assert accepted(mime, parser=parser) is (mime in types)
    assert accepted(mime, skip_pages=[1]) is (mime in PAGED)
    assert accepted(mime, ocr=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ocr": "yes"},
        {"skip_pages": [0]},
        {"skip_pages": ["two"]},
        {"skip_pages": 3},
        {"parser": "x"},
        {"language": "en"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        ReadingOptions.of(wrong)


def accepted(mime: str, **options: object) -> bool:
    try:
        ReadingOptions.of(dict(options), mime)
    except Invalid:
        return False
    return True
