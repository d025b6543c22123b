"""Files that are empty, broken, hostile or not what they claim: a clear answer, and nothing of them is ever found."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from sluice.db.session import tenant_session
from sluice.documents.models import Chunk
from tests import files
from tests.e2e.api import Api
from tests.e2e.running import MEGABYTE, SETTINGS, Stores

LIMIT = int(SETTINGS["SLUICE_INGEST_MAX_UPLOAD_BYTES"])
MAKERS: dict[str, Callable[[Path], Path]] = {
    ".pdf": lambda path: files.pdf_document(path, [["The maintainer answers bug reports."]] * 3),
    ".docx": files.docx_document,
    ".xlsx": lambda path: files.xlsx_document(path, [("Package", "Maintainer"), ("sluice", "Anna")]),
}


def nothing_was_registered(api: Api, source: str) -> bool:
    return not api.get("/api/documents", source_id=source)["data"]


def assert_never_searchable(api: Api, job: dict[str, Any], source: str) -> None:
    document = api.document(job["document_id"])
    assert not document["searchable"]
    assert document["error"]["code"] == job["error"]["code"]
    assert api.search(source, "maintainer package text")["passages"] == []


def test_an_empty_file_is_422_and_leaves_nothing(api: Api, source: str) -> None:
    answer = api.upload(source, "empty.txt", b"")

    assert (answer.status_code, answer.json()["code"]) == (422, "empty_file")
    assert nothing_was_registered(api, source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spaces.txt", b" \n\t\r\n \n"),
        ("controls.txt", "\u200b\ufeff\u00ad\n".encode()),
        ("page.html", b"<!doctype html><html><body><script>alert('only a script')</script></body></html>"),
        ("object.json", b"{}"),
    ],
)
def test_a_file_without_text_fails_as_no_text_and_is_never_searchable(
    api: Api, source: str, name: str, content: bytes
) -> None:
    job = api.ended(source, name, content)

    assert (job["state"], job["error"]["code"]) == ("failed", "no_text")
    assert job["allowed_actions"] == ["retry"]
    assert_never_searchable(api, job, source)


def test_a_scan_without_a_text_layer_fails_as_no_text(api: Api, source: str, tmp_path: Path) -> None:
    scan = files.scanned_pdf(tmp_path / "scan.pdf")

    job = api.ended(source, scan.name, scan.read_bytes())

    assert (job["state"], job["error"]["code"]) == ("failed", "no_text")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("program.exe", b"MZ\x90\x00" + bytes(200)),
        ("archive.tar.gz", b"\x1f\x8b\x08\x00" + bytes(200)),
        ("old.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)),
        ("letter.rtf", b"{\\rtf1\\ansi Dear reader}"),
        ("random.bin", bytes(range(256)) * 4),
    ],
)
def test_an_unknown_type_is_415_and_says_what_is_accepted(api: Api, source: str, name: str, content: bytes) -> None:
    answer = api.upload(source, name, content)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (415, "unsupported_type")
    assert {"pdf", "docx", "txt", "html", "epub"} <= set(problem["accepted"])
    assert name in problem["detail"]
    assert "Accepted are pdf, docx" in problem["detail"]
    assert nothing_was_registered(api, source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("not-really.pdf", b"These are the words of a plain text."),
        ("not-really.docx", b"<html><body>A page</body></html>"),
        ("not-really.txt", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"),
        ("not-really.html", b"PK\x03\x04" + bytes(100)),
        ("not-really.png", b"MZ\x90\x00" + bytes(200)),
        ("not-really.txt", b"\x7fELF\x02\x01\x01" + bytes(200)),
    ],
)
def test_a_type_that_the_name_lies_about_is_415(api: Api, source: str, name: str, content: bytes) -> None:
    answer = api.upload(source, name, content)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_type")
    assert nothing_was_registered(api, source)


def test_an_archive_that_calls_itself_a_document_is_415(api: Api, source: str, tmp_path: Path) -> None:
    archive = files.zip_archive(tmp_path / "book.docx", {"readme.txt": "Not a document."})

    assert api.upload(source, archive.name, archive.read_bytes()).status_code == 415


def test_a_file_over_the_limit_is_413_with_limit_and_size(api: Api, source: str) -> None:
    answer = api.upload(source, "large.txt", b"a" * (LIMIT + 1))

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (413, "too_large")
    assert (problem["limit"], problem["actual"]) == (LIMIT, LIMIT + 1)
    assert nothing_was_registered(api, source)


def test_a_file_of_exactly_the_limit_is_taken(api: Api, source: str) -> None:
    # Not text: it would be read for a minute. A PDF's head with padding is over at once.
    answer = api.upload(source, "largest.pdf", b"%PDF-1.7\n".ljust(LIMIT, b"%"))

    assert answer.status_code == 202
    assert api.wait(answer.json()["job_id"])["error"]["code"] == "damaged"


def test_a_length_announced_far_over_the_limit_is_413_before_the_body_is_read(api: Api, source: str) -> None:
    answer = api.upload(source, "huge.txt", b"a" * (3 * LIMIT))

    problem = answer.json()
    assert (answer.status_code, problem["limit"]) == (413, LIMIT)
    assert problem["actual"] >= 3 * LIMIT


def test_a_body_without_a_length_is_413_once_it_is_over_the_limit(api: Api, source: str) -> None:
    boundary = "a-boundary"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="source_id"\r\n\r\n{source}\r\n--{boundary}\r\n'
        'Content-Disposition: form-data; name="file"; filename="endless.txt"\r\n\r\n'
    )

    def body() -> Iterator[bytes]:
        yield head.encode()
        for _ in range(2 * LIMIT // 65_536):
            yield b"a" * 65_536

    answer = api.http.post(
        "/api/documents", content=body(), headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )

    assert (answer.status_code, answer.json()["limit"]) == (413, LIMIT)
    assert LIMIT < answer.json()["actual"] < 2 * LIMIT
    assert nothing_was_registered(api, source)


def test_a_body_of_json_over_a_megabyte_is_413(api: Api) -> None:
    answer = api.http.post("/api/search", json={"question": "a" * 2_000_000})

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_locked_pdf_fails_as_encrypted(api: Api, source: str, tmp_path: Path) -> None:
    locked = files.encrypted_pdf(tmp_path / "locked.pdf")

    job = api.ended(source, locked.name, locked.read_bytes())

    assert (job["state"], job["error"]["code"]) == ("failed", "encrypted")
    assert_never_searchable(api, job, source)


@pytest.mark.parametrize("suffix", MAKERS)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_file_cut_short_fails_as_damaged_and_is_never_searchable(
    api: Api, source: str, tmp_path: Path, suffix: str, share: float
) -> None:
    whole = MAKERS[suffix](tmp_path / f"whole{suffix}")
    cut = files.truncated(tmp_path / f"cut{suffix}", whole, share)

    job = api.ended(source, cut.name, cut.read_bytes())

    assert (job["state"], job["error"]["code"]) == ("failed", "damaged")
    assert_never_searchable(api, job, source)


def test_a_zip_bomb_in_a_docx_fails_as_too_complex_and_the_worker_goes_on(
    api: Api, source: str, tmp_path: Path
) -> None:
    bomb = files.zip_bomb_docx(tmp_path / "bomb.docx", unpacked=100 * 1024**2)

    job = api.ended(source, bomb.name, bomb.read_bytes())
    after = api.ingested(source, "after.txt", b"The worker reads the next file as if nothing had happened.")

    assert (job["state"], job["error"]["code"]) == ("failed", "too_complex")
    assert after["searchable"]


def test_a_document_that_lies_about_its_unpacked_size_fails_as_damaged(api: Api, source: str, tmp_path: Path) -> None:
    document = files.docx_document(tmp_path / "lying.docx")
    with zipfile.ZipFile(document) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    text = entries["word/document.xml"].replace(b"<w:body>", b"<w:body>" + b" " * 100 * MEGABYTE)
    with zipfile.ZipFile(document, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (entries | {"word/document.xml": text}).items():
            archive.writestr(name, content)
    lying = document.read_bytes().replace(len(text).to_bytes(4, "little"), (10_000).to_bytes(4, "little"))

    job = api.ended(source, "lying.docx", lying)

    assert (job["state"], job["error"]["code"]) == ("failed", "damaged")


def test_a_sheet_of_100_000_rows_is_read_to_its_last_row_and_can_be_erased_while_it_is_embedded(
    api: Api, source: str, tmp_path: Path, stores: Stores, editor: Any
) -> None:
    sheet = files.large_xlsx(tmp_path / "large.xlsx", rows=100_000)
    job = api.accepted(source, sheet.name, sheet.read_bytes())

    api.wait_for(job["job_id"], lambda job: job["step"] == "embed" or job["state"] == "failed", seconds=180)
    with tenant_session(stores.sessions, editor.tenant_id) as session:
        of_sheet = Chunk.document_id == job["document_id"]
        number = session.scalar(select(func.count()).select_from(Chunk).where(of_sheet)) or 0
        last = session.scalars(select(Chunk.text).where(of_sheet).order_by(Chunk.ordinal.desc()).limit(1)).one()
    receipt = api.http.delete(f"/api/documents/{job['document_id']}")

    assert number > 1_000
    assert "package-99999" in last
    assert receipt.json() == {"document_id": job["document_id"], "rows": 0, "points": 0, "objects": 0}
    assert api.http.get(f"/api/jobs/{job['job_id']}").status_code == 404


def test_the_scripts_of_a_page_are_nobody_s_text(api: Api, source: str, tmp_path: Path) -> None:
    page = files.html_with_scripts(tmp_path / "page.html")

    api.ingested(source, page.name, page.read_bytes())

    assert any("responsible for its quality" in text for text in api.found(source, "Who answers for quality?"))
    shown = " ".join(api.found(source, "stealCookies evil color red hidden template Enable JavaScript Home"))
    for hidden in ("stealCookies", "evil", "color", "hidden template", "JavaScript", "<"):
        assert hidden not in shown


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "utf-16", "utf-16-le", "utf-8-sig"])
def test_russian_text_is_found_by_its_words_whatever_its_encoding(api: Api, source: str, encoding: str) -> None:
    text = files.RUSSIAN if encoding != "utf-16-le" else "\ufeff" + files.RUSSIAN

    document = api.ingested(source, f"{encoding}.txt", text.encode(encoding))

    assert document["version"]["lang"] == "ru"
    (passage,) = api.found(source, "отчёт об ошибке в пакете")
    assert "Он читает отчёты об ошибках" in passage


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\anna\\report.txt", "report.txt"),
        ("line\nbreak\tand\x1bescape.txt", "linebreakandescape.txt"),
        ("invoice\u202etxt.exe.txt", "invoicetxt.exe.txt"),
        ("отчёт за год.txt", "отчёт за год.txt"),
        ("a" * 300 + ".txt", "a" * 251 + ".txt"),
    ],
)
def test_a_name_is_kept_without_folders_and_invisible_characters(api: Api, source: str, given: str, kept: str) -> None:
    # By the two-step way, because HTTP clients repair such names before they send a form.
    content = f"The text of {given!r}.".encode()
    promise = api.promised(source, given, content)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()

    completed = api.http.post(promise["complete"]).raise_for_status().json()

    assert api.document(completed["document_id"])["name"] == kept


def test_a_name_that_cannot_be_stored_is_422(api: Api, source: str) -> None:
    body = {"source_id": source, "name": "nul\x00.txt", "size": 1, "content_hash": "0" * 64}

    assert api.http.post("/api/uploads", json=body).status_code == 422


def test_a_name_with_folders_in_a_form_is_kept_without_them(api: Api, source: str) -> None:
    accepted = api.accepted(source, "../../../root/.ssh/keys.txt", b"Words in a file with a long way.")

    assert api.document(accepted["document_id"])["name"] == "keys.txt"


def test_a_form_without_a_file_or_without_a_source_is_422(api: Api, source: str) -> None:
    without_file = api.http.post("/api/documents", data={"source_id": source}, files={"other": ("a.txt", b"a")})
    without_source = api.http.post("/api/documents", files={"file": ("a.txt", b"a")})
    not_a_form = api.http.post("/api/documents", json={"source_id": source})

    assert (without_file.status_code, without_file.json()["code"]) == (422, "file_missing")
    assert (without_source.status_code, without_source.json()["code"]) == (422, "source_missing")
    assert not_a_form.status_code == 422


def test_too_many_or_too_long_tags_are_422(api: Api, source: str) -> None:
    many = api.upload(source, "a.txt", b"a", tags=[str(n) for n in range(33)])
    long = api.upload(source, "a.txt", b"a", tags=["x" * 101])

    assert (many.status_code, many.json()["code"]) == (422, "invalid_tags")
    assert (long.status_code, long.json()["code"]) == (422, "invalid_tags")


def test_a_file_that_failed_can_be_uploaded_again_and_is_tried_again(api: Api, source: str) -> None:
    failed = api.ended(source, "blank.txt", b"   \n")

    again = api.upload(source, "blank.txt", b"   \n")

    assert failed["state"] == "failed"
    assert again.status_code == 202
    assert (again.json()["job_id"], again.json()["duplicate"]) == (failed["id"], False)
    tried = api.wait(failed["id"])
    assert tried["steps"][0]["attempt"] == 2


def test_a_repaired_file_of_the_same_name_takes_the_place_of_the_failed_one(
    api: Api, source: str, tmp_path: Path
) -> None:
    whole = files.docx_document(tmp_path / "duties.docx")
    failed = api.ended(source, "duties.docx", files.truncated(tmp_path / "cut.docx", whole).read_bytes())

    repaired = api.ingested(source, "duties.docx", whole.read_bytes())

    assert failed["error"]["code"] == "damaged"
    assert repaired["id"] == failed["document_id"]
    assert (repaired["version"]["number"], repaired["state"]) == (2, "ready")
    assert api.found(source, "Who is responsible for the quality of a package?")
