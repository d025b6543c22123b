"""Documents that cannot be read, or must not be read any longer, end in an answer and never in a dead worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from services.workers.parsing.document import ParseOptions
from services.workers.parsing.sandbox import Stopped, parse_document
from sluice.documents import media_types
from sluice.errors import DocumentUnreadable
from tests import files

OPTIONS = ParseOptions()


def failure(path: Path, mime: str, options: ParseOptions = OPTIONS) -> DocumentUnreadable:
    with pytest.raises(DocumentUnreadable) as refusal:
        parse_document(path, mime, options, output=path.with_suffix(".jsonl"))
    return refusal.value


def children() -> list[psutil.Process]:
    """The parsing children of this process, which may be the parent of a whole platform besides."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "services.workers.parsing.child" in child.cmdline():
                found.append(child)
    return found


def test_an_encrypted_pdf_says_that_it_needs_a_password(tmp_path: Path) -> None:
    error = failure(files.encrypted_pdf(tmp_path / "a.pdf"), media_types.PDF)

    assert (error.code, "password" in error.detail) == ("encrypted", True)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_pdf_cut_short_is_damaged(tmp_path: Path, share: float) -> None:
    whole = files.pdf_document(tmp_path / "whole.pdf", [[f"Page {n}."] for n in range(20)])

    assert failure(files.truncated(tmp_path / "cut.pdf", whole, share), media_types.PDF).code == "damaged"


def test_office_documents_cut_short_are_damaged(tmp_path: Path) -> None:
    for mime, whole in (
        (media_types.DOCX, files.docx_document(tmp_path / "whole.docx")),
        (media_types.XLSX, files.xlsx_document(tmp_path / "whole.xlsx", [("A", "B"), (1, 2)])),
        (media_types.PPTX, files.pptx_document(tmp_path / "whole.pptx", {"Title": "Text"})),
        (media_types.EPUB, files.epub_book(tmp_path / "whole.epub", {"a.xhtml": "<p>Text</p>"})),
    ):
        assert failure(files.truncated(tmp_path / "cut", whole), mime).code == "damaged"


def test_a_document_that_lacks_its_parts_is_damaged(tmp_path: Path) -> None:
    hollow = files.zip_archive(tmp_path / "a.docx", {"[Content_Types].xml": "<Types/>", "word/document.xml": "<x>"})

    assert failure(hollow, media_types.DOCX).code == "damaged"


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    by_size = failure(files.zip_bomb_docx(tmp_path / "size.docx"), media_types.DOCX)
    by_ratio = failure(files.zip_bomb_docx(tmp_path / "ratio.docx", 100 * 1024**2), media_types.DOCX)

    assert (by_size.code, "SLUICE_INGEST_MAX_UNPACKED_BYTES" in by_size.detail) == ("too_complex", True)
    assert (by_ratio.code, "SLUICE_INGEST_MAX_UNPACK_RATIO" in by_ratio.detail) == ("too_complex", True)


def test_an_entity_bomb_in_a_book_stays_small(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "boom"}">' for n in range(12))
    bomb = (
        f'<?xml version="1.0"?><!DOCTYPE p [{entities}]><package xmlns="http://www.idpf.org/2007/opf">&e11;</package>'
    )
    book = files.zip_archive(
        tmp_path / "a.epub",
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="b.opf"/></rootfiles></container>',
            "b.opf": bomb,
        },
    )

    assert failure(book, media_types.EPUB).code in {"damaged", "no_text"}


def test_a_file_that_an_entity_points_to_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret words")
    page = tmp_path / "a.html"
    page.write_text(f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}">]><p>Seen: &x;</p>')
    output = tmp_path / "out.jsonl"

    parse_document(page, media_types.HTML, OPTIONS, output=output)

    assert "secret words" not in output.read_text()


@pytest.mark.parametrize("content", ["", "  \n\n ", "--- *** ---\n"])
def test_a_text_without_words_has_no_text(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(content)

    assert failure(path, media_types.PLAIN).code == "no_text"


def test_a_scan_says_that_ocr_is_off(tmp_path: Path) -> None:
    for path, mime in (
        (files.scanned_pdf(tmp_path / "a.pdf"), media_types.PDF),
        (files.png_image(tmp_path / "a.png"), media_types.PNG),
    ):
        error = failure(path, mime)
        assert (error.code, "SLUICE_INGEST_OCR" in error.detail) == ("no_text", True)


def test_json_nested_without_end_is_too_complex(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000 + "]" * 100_000)

    assert failure(path, media_types.JSON).code == "too_complex"


def test_json_that_breaks_off_says_where(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b": ')

    error = failure(path, media_types.JSON)

    assert (error.code, "line 2" in error.detail) == ("damaged", True)


@pytest.mark.parametrize(
    ("mime", "content"), [(media_types.JSON, '["' + "word " * 20_000_000), (media_types.HTML, "<p>word" * 6_000_000)]
)
def test_a_document_that_takes_too_much_memory_is_too_complex(tmp_path: Path, mime: str, content: str) -> None:
    path = tmp_path / "a"
    path.write_text(content)

    error = failure(path, mime, replace(OPTIONS, memory_bytes=160 * 1024**2))

    assert (error.code, "memory" in error.detail) == ("too_complex", True)


def test_a_document_that_takes_too_long_is_too_complex_and_its_child_is_gone(tmp_path: Path) -> None:
    path = files.large_xlsx(tmp_path / "a.xlsx")

    error = failure(path, media_types.XLSX, replace(OPTIONS, timeout_seconds=0.5))

    assert (error.code, "0 seconds" in error.detail or "1 seconds" in error.detail) == ("too_complex", True)
    assert children() == []


def test_reading_stops_when_nobody_wants_it_any_longer(tmp_path: Path) -> None:
    path = files.large_xlsx(tmp_path / "a.xlsx")
    answers = iter([False, False])

    with pytest.raises(Stopped):
        parse_document(
            path, media_types.XLSX, OPTIONS, output=tmp_path / "out", should_stop=lambda: next(answers, True)
        )

    assert children() == []


def killed_with(number: int) -> Callable[[int, int], None]:
    def kill(_done: int, _total: int) -> None:
        # Progress that was on its way already is heard after the first kill, when nobody is left.
        for child in children():
            os.kill(child.pid, number)

    return kill


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGSEGV, "damaged"), (signal.SIGABRT, "damaged"), (signal.SIGKILL, "too_complex")]
)
def test_a_child_that_crashes_ends_in_an_answer(tmp_path: Path, number: int, code: str) -> None:
    path = files.long_pdf(tmp_path / "a.pdf", pages=600)

    with pytest.raises(DocumentUnreadable) as refusal:
        parse_document(path, media_types.PDF, OPTIONS, output=tmp_path / "out", on_progress=killed_with(number))

    assert refusal.value.code == code


def test_progress_counts_the_pages(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    path = files.pdf_document(tmp_path / "a.pdf", [[f"This is page {n}."] for n in range(5)])

    parse_document(
        path, media_types.PDF, OPTIONS, output=tmp_path / "out", on_progress=lambda *pages: heard.append(pages)
    )

    assert heard == [(page, 5) for page in range(1, 6)]


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code 1"):
        parse_document(tmp_path / "missing.pdf", media_types.PDF, OPTIONS, output=tmp_path / "out")


def test_the_child_is_told_no_secret_of_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_S3_SECRET_KEY", "hunter2")
    seen: list[dict[str, str]] = []

    def look(_done: int, _total: int) -> None:
        if not seen:
            seen.extend(child.environ() for child in children())

    path = files.long_pdf(tmp_path / "a.pdf", pages=600)
    parse_document(path, media_types.PDF, OPTIONS, output=tmp_path / "out", on_progress=look)

    assert seen
    assert not [name for environment in seen for name in environment if name.startswith("SLUICE_")]
