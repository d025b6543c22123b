"""Every format read in the child process, from files that people wrote and from odd ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import docx
import pytest

from services.workers.parsing.document import ParseOptions
from services.workers.parsing.ocr import is_installed
from services.workers.parsing.sandbox import ParseReport, parse_document
from sluice.documents.media_types import sniff
from sluice.documents.text import Block, BlockKind
from tests import files

SAMPLES = Path(__file__).parents[2] / "samples"
OPTIONS = ParseOptions()
Read = Callable[..., tuple[ParseReport, list[Block]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a file as the worker does: told by its content, in a child process."""

    def read_file(path: Path, options: ParseOptions = OPTIONS) -> tuple[ParseReport, list[Block]]:
        output = tmp_path / "blocks.jsonl"
        with path.open("rb") as file:
            mime = sniff(file, path.name)
        report = parse_document(path, mime, options, output=output)
        return report, [Block.from_json(line) for line in output.read_text(encoding="utf-8").splitlines()]

    return read_file


def texts(blocks: list[Block], kind: BlockKind | None = None) -> list[str]:
    return [block.text for block in blocks if kind is None or block.kind is kind]


@pytest.mark.parametrize(
    ("name", "heading", "sentence"),
    [
        ("debian-faq.en.pdf", "1.2 What is Debian GNU/Linux?", "Debian GNU/Linux is a particular distribution"),
        ("debian-faq.ru.pdf", "1.2 Что такое Debian GNU/Linux?", "Исходно оно разрабатывалось для машин"),
        ("debian-faq.choosing.en.html", "Chapter 3. Choosing a Debian distribution", "install stable. period."),
        ("debian-faq.choosing.ru.html", "Глава 3. Выбор дистрибутива Debian", "устанавливайте стабильный"),
        ("developers-reference.en.epub", "2.2. Debian mentors and sponsors", "has been set up for novice"),
        ("developers-reference.ru.epub", "2.2. Наставники и поручители Debian", "для начинающих сопровождающих"),
        (
            "debian-faq.pkg-basics.en.docx",
            "7.1. What is a Debian package?",
            "Installation of software by the package system",
        ),
        ("debian-faq.pkg-basics.ru.docx", "7.1. Что такое пакет Debian?", "Инструменты управления пакетами Debian"),
        (
            "debian-faq.kernel.en.md",
            "10.3. What special provisions does Debian provide to deal with modules?",
            "modules",
        ),
        ("debian-faq.kernel.ru.md", "Глава 10. Debian и ядро", "ядр"),
    ],
)
def test_a_document_that_people_wrote_gives_its_headings_and_its_text(
    read: Read, name: str, heading: str, sentence: str
) -> None:
    _, blocks = read(SAMPLES / name)

    assert heading in texts(blocks, BlockKind.HEADING)
    assert any(sentence in text for text in texts(blocks, BlockKind.PARAGRAPH) + texts(blocks, BlockKind.LIST_ITEM))


@pytest.mark.parametrize("name", ["debian-faq.en.txt", "debian-faq.ru.txt"])
def test_a_long_text_gives_paragraphs_lists_and_code(read: Read, name: str) -> None:
    report, blocks = read(SAMPLES / name)

    assert report.encoding == "utf-8"
    assert {BlockKind.PARAGRAPH, BlockKind.LIST_ITEM, BlockKind.CODE} <= {block.kind for block in blocks}


@pytest.mark.parametrize("language", ["en", "ru"])
def test_slides_are_pages_and_their_titles_headings(read: Read, language: str) -> None:
    report, blocks = read(SAMPLES / f"debian-faq.choosing.{language}.pptx")

    headings = [block for block in blocks if block.kind is BlockKind.HEADING]
    assert [block.page for block in headings] == list(range(1, (report.pages or 0) + 1))


@pytest.mark.parametrize(("language", "header"), [("en", "Question: 3.1."), ("ru", "Вопрос: 3.1.")])
def test_rows_of_a_sheet_name_their_columns(read: Read, language: str, header: str) -> None:
    _, blocks = read(SAMPLES / f"debian-faq.choosing.{language}.xlsx")

    assert texts(blocks, BlockKind.HEADING) == ["FAQ"]
    assert any(text.startswith(header) for text in texts(blocks, BlockKind.TABLE_ROW))


@pytest.mark.parametrize("language", ["en", "ru"])
def test_lines_of_a_pdf_have_boxes_on_their_page(read: Read, language: str) -> None:
    report, blocks = read(SAMPLES / f"debian-faq.{language}.pdf")

    spans = [span for block in blocks for span in block.spans]
    assert len(spans) > 1000
    for span in spans:
        x0, y0, x1, y1 = span.box
        assert 1 <= span.page <= (report.pages or 0)
        assert 0 <= x0 < x1 < 720  # two lines of a long address stick out of the page
        assert 0 <= y0 < y1 <= 842


@pytest.mark.parametrize(("language", "running"), [("en", "CHAPTER 1. DEFINITIONS"), ("ru", "ГЛАВА 1. ОПРЕДЕЛЕНИЯ")])
def test_running_heads_and_tables_of_contents_of_a_pdf_are_left_out(read: Read, language: str, running: str) -> None:
    _, blocks = read(SAMPLES / f"debian-faq.{language}.pdf")

    assert not [text for text in texts(blocks) if running in text or ". . . ." in text]


def test_running_lines_go_and_headings_stay(read: Read, tmp_path: Path) -> None:
    pages = [[f"This is what page {word} says."] for word in ("one", "two", "three", "four", "five")]
    path = files.pdf_document(tmp_path / "a.pdf", pages, heads=["The handbook"], numbered=True)

    _, blocks = read(path)

    assert texts(blocks) == [line for [line] in pages]
    assert [block.page for block in blocks] == [1, 2, 3, 4, 5]


def test_a_sentence_that_runs_over_a_page_stays_one_paragraph(read: Read, tmp_path: Path) -> None:
    _, blocks = read(files.pdf_document(tmp_path / "a.pdf", [["A sentence may begin here"], ["and end there."]]))

    assert [(block.text, [span.page for span in block.spans]) for block in blocks] == [
        ("A sentence may begin here and end there.", [1, 2])
    ]


def test_a_pdf_of_three_hundred_pages_is_read_in_little_memory(read: Read, tmp_path: Path) -> None:
    report, blocks = read(files.long_pdf(tmp_path / "long.pdf"))

    assert report.pages == 300
    assert blocks[-1].text.startswith("Page 300 line 0")
    assert report.peak_bytes < 400 * 1024**2


def test_a_sheet_of_a_hundred_thousand_rows_is_read_in_little_memory(read: Read, tmp_path: Path) -> None:
    report, blocks = read(files.large_xlsx(tmp_path / "large.xlsx"))

    assert report.blocks == 100_002
    assert blocks[-1].text == "Package: package-99999; Maintainer: Maintainer 345; Version: 1.3; Bugs: 24"
    assert report.peak_bytes < 200 * 1024**2


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1251", "koi8-r", "cp866"]
)
def test_russian_text_is_read_in_every_encoding(read: Read, tmp_path: Path, encoding: str) -> None:
    report, blocks = read(files.text_in(tmp_path / "a.txt", encoding))

    assert "\n\n".join(texts(blocks)) == files.RUSSIAN
    assert report.encoding is not None


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r"])
def test_a_few_russian_words_are_enough_to_tell_the_encoding(read: Read, tmp_path: Path, encoding: str) -> None:
    _, blocks = read(files.text_in(tmp_path / "a.txt", encoding, "Привет, мир!"))

    assert texts(blocks) == ["Привет, мир!"]


def test_a_broken_character_does_not_spoil_the_rest(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(files.RUSSIAN.encode() + b"\n\nend \xd0\xff")

    report, blocks = read(path)

    assert report.encoding == "utf-8"
    assert texts(blocks)[0] in files.RUSSIAN


def test_scripts_and_navigation_of_a_page_are_not_its_text(read: Read, tmp_path: Path) -> None:
    report, blocks = read(files.html_with_scripts(tmp_path / "a.html"))

    assert report.title == "Duties"
    assert texts(blocks) == ["Duties", " ".join(files.ENGLISH.split())]


def test_a_page_of_links_alone_is_kept(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("<ul><li><a href=a>First part</a><li><a href=b>Second</a><li><a href=c>Third</a></ul>")

    _, blocks = read(path)

    assert texts(blocks) == ["First part", "Second", "Third"]


def test_a_declared_encoding_of_a_page_is_believed(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes('<html><head><meta charset="cp1250"></head><p>Příliš žluťoučký kůň</p>'.encode("cp1250"))

    _, blocks = read(path)

    assert texts(blocks) == ["Příliš žluťoučký kůň"]


def test_deeply_nested_tags_do_no_harm(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("<p>before</p>" + "<div>" * 5000 + "deep" + "</div>" * 5000)

    _, blocks = read(path)

    assert texts(blocks)[0] == "before"


def test_chapters_of_a_book_are_read_in_order(read: Read, tmp_path: Path) -> None:
    chapters = {"b.xhtml": "<h1>One</h1><p>First.</p>", "a.xhtml": "<h1>Two</h1><p>Second.</p>"}

    report, blocks = read(files.epub_book(tmp_path / "a.epub", chapters, title="The book"))

    assert (report.title, report.pages) == ("The book", 2)
    assert [(block.text, block.page) for block in blocks] == [("One", 1), ("First.", 1), ("Two", 2), ("Second.", 2)]


def test_markdown_is_read_as_it_renders(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "---\ntitle: Plan\n---\n# Top\n\nSome *emphasis* and `code`.\n\n- one\n- two\n\n"
        "| Name | Use |\n|---|---|\n| dpkg | installs |\n\n```sh\nls -l\n```\n"
    )

    report, blocks = read(path)

    assert report.title == "Plan"
    assert [(block.kind, block.text) for block in blocks[1:]] == [
        (BlockKind.HEADING, "Top"),
        (BlockKind.PARAGRAPH, "Some emphasis and code."),
        (BlockKind.LIST_ITEM, "one"),
        (BlockKind.LIST_ITEM, "two"),
        (BlockKind.TABLE_ROW, "Name | Use"),
        (BlockKind.TABLE_ROW, "Name: dpkg; Use: installs"),
        (BlockKind.CODE, "ls -l"),
    ]


def test_tables_and_lists_of_a_docx_come_in_the_order_of_the_document(read: Read, tmp_path: Path) -> None:
    document = docx.Document()
    document.add_heading("Tools", level=2)
    document.add_paragraph("first", style="List Number")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        (cell for row in table.rows for cell in row.cells), ("Name", "Use", "dpkg", "installs"), strict=True
    ):
        cell.text = text
    document.add_paragraph("After the table.")
    document.save(str(tmp_path / "a.docx"))

    _, blocks = read(tmp_path / "a.docx")

    assert [(block.kind, block.level, block.text) for block in blocks] == [
        (BlockKind.HEADING, 2, "Tools"),
        (BlockKind.LIST_ITEM, None, "first"),
        (BlockKind.TABLE_ROW, None, "Name | Use"),
        (BlockKind.TABLE_ROW, None, "Name: dpkg; Use: installs"),
        (BlockKind.PARAGRAPH, None, "After the table."),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_table_is_found(read: Read, tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    rows = [("Город", "Население, чел."), ("Омск", '"1 110 000"'), ("Псков", "187 000")]
    if delimiter == ",":
        rows[0] = ("Город", "Население")
    path.write_bytes("\n".join(delimiter.join(row) for row in rows).encode("cp1251"))

    _, blocks = read(path)

    assert texts(blocks)[1] == f"{rows[0][0]}: Омск; {rows[0][1]}: 1 110 000"


def test_values_of_json_say_where_they_stand(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"team": {"lead": "Анна", "size": 3}, "tags": ["a", null, true]}')

    _, blocks = read(path)

    assert texts(blocks) == ["team.lead: Анна", "team.size: 3", "tags[0]: a", "tags[2]: true"]


def test_a_message_gives_its_headers_text_and_the_names_of_its_attachments(read: Read, tmp_path: Path) -> None:
    path = files.email_message(tmp_path / "a.eml", html="<p>The same</p>", attachment="отчёт.pdf")

    report, blocks = read(path)

    assert report.title == "О выпуске"
    assert texts(blocks)[0] == "О выпуске"
    assert "From: Анна <anna@example.org>" in texts(blocks)[1]
    assert texts(blocks)[-1] == "Attachment: отчёт.pdf"
    assert "The same" not in texts(blocks)


def test_a_message_of_html_alone_is_read(read: Read, tmp_path: Path) -> None:
    path = files.email_message(tmp_path / "a.eml", text=None, html="<p>Hello <b>team</b></p><script>x()</script>")

    _, blocks = read(path)

    assert texts(blocks)[-1] == "Hello team"


@pytest.mark.skipif(not is_installed(), reason="Tesseract is not installed")
def test_scans_are_read_where_an_operator_switched_it_on(read: Read, tmp_path: Path) -> None:
    options = replace(OPTIONS, ocr=True, ocr_languages="eng")

    _, of_pdf = read(files.scanned_pdf(tmp_path / "scan.pdf", "Scanned words"), options)
    _, of_image = read(files.png_image(tmp_path / "scan.png", "Scanned words"), options)

    assert texts(of_pdf) == texts(of_image) == ["Scanned words"]
    [span] = of_pdf[0].spans
    assert 50 < span.box[0] < span.box[2] < 550
    assert 500 < span.box[1] < span.box[3] < 700
