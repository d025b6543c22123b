"""The ways in: the same bytes twice and twenty times at once, uploads cut short, and presigned uploads."""

from __future__ import annotations

import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from sluice.db.session import tenant_session
from sluice.documents.models import Chunk, Upload
from sluice.object_store import document_prefix
from tests.e2e.api import Api
from tests.e2e.running import Count, Member, Stores

TEXT = b"The maintainer of this package answers every bug report within a week."


def unique_text(about: str = "uploads") -> bytes:
    """Words that no other test sends, so that no vector of theirs is used again."""
    return f"This text is about {about}, and its mark is {uuid4().hex}.".encode()


def test_the_same_bytes_twice_are_one_document_and_one_job(api: Api, source: str) -> None:
    first = api.accepted(source, "handbook.txt", TEXT)
    api.wait(first["job_id"])

    again = api.upload(source, "a-copy-of-the-handbook.txt", TEXT)

    assert again.status_code == 200
    assert again.headers["location"] == f"/api/jobs/{first['job_id']}"
    assert again.json() == first | {"state": "ready", "duplicate": True}
    assert len(api.get("/api/documents", source_id=source)["data"]) == 1


def test_the_same_bytes_in_another_source_are_another_document_but_are_not_embedded_again(
    api: Api, source: str, embedded_texts: Count
) -> None:
    content = unique_text()
    first = api.ingested(source, "shared.txt", content)
    before = embedded_texts()

    second = api.ingested(api.new_source(), "shared.txt", content)

    assert second["id"] != first["id"]
    assert embedded_texts() == before


def test_twenty_uploads_of_the_same_bytes_at_once_are_one_document_one_job_and_one_embed_run(
    api: Api, source: str, editor: Member, stores: Stores, embedded_texts: Count
) -> None:
    content = unique_text("twenty uploads")
    before = embedded_texts()

    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda n: api.upload(source, f"copy-{n}.txt", content), range(20)))

    bodies = [answer.json() for answer in answers]
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({(body["document_id"], body["job_id"]) for body in bodies}) == 1
    document_id, job_id = bodies[0]["document_id"], bodies[0]["job_id"]
    assert api.wait(job_id)["state"] == "ready"
    assert [document["id"] for document in api.get("/api/documents", source_id=source)["data"]] == [document_id]
    assert [job["id"] for job in api.get("/api/jobs", document_id=document_id)["data"]] == [job_id]
    assert embedded_texts() == before + 1
    with tenant_session(stores.sessions, editor.tenant_id) as session:
        assert session.scalar(select(func.count()).select_from(Chunk).where(Chunk.document_id == document_id)) == 1
    digest = hashlib.sha256(content).hexdigest()
    everything = stores.objects.keys(f"tenant/{editor.tenant_id}/")
    assert len([key for key in everything if key.endswith(digest)]) == 1
    assert len(stores.objects.keys(document_prefix(editor.tenant_id, document_id))) == 2


def test_twenty_versions_of_one_name_at_once_are_one_document_and_the_newest_is_found(api: Api, source: str) -> None:
    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda n: api.upload(source, "minutes.txt", unique_text(f"draft {n}")), range(20)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["document_id"] for answer in answers}) == 1
    for answer in answers:
        assert api.wait(answer.json()["job_id"])["state"] == "ready"
    document = api.document(answers[0].json()["document_id"])
    assert document["version"]["number"] == 20
    newest = api.original(document["id"]).decode()
    assert api.found(source, "draft mark") == [newest]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_an_upload_cut_half_way_registers_nothing_and_breaks_nothing(
    api: Api, source: str, inside: httpx.Client, share: float
) -> None:
    request = httpx.Request(
        "POST",
        api.http.base_url.join("/api/documents"),
        data={"source_id": source},
        files={"file": ("half.txt", TEXT * 20_000)},
        headers={"Authorization": f"Bearer {api.token}"},
    )
    head = ["POST /api/documents HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]
    sent = request.read()[: int(int(request.headers["content-length"]) * share)]
    failures = failures_of(inside)

    with socket.create_connection((request.url.host, request.url.port), timeout=10) as connection:
        connection.sendall("\r\n".join(head).encode() + sent)

    assert api.get("/api/documents", source_id=source)["data"] == []
    assert api.upload(source, "whole.txt", unique_text()).status_code == 202
    assert failures_of(inside) == failures


def failures_of(inside: httpx.Client) -> list[str]:
    """What the API has counted of answers that blame the server."""
    lines = inside.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("http_requests_total{") and 'status="5' in line]


def test_a_presigned_upload_is_taken_and_found(api: Api, source: str) -> None:
    content = unique_text("presigned uploads")
    promise = api.promised(source, "direct.txt", content, tags=["direct"], external_id="D-1")

    put = httpx.put(promise["url"], content=content, timeout=30)
    completed = api.http.post(promise["complete"])

    assert put.status_code == 200
    assert completed.status_code == 202
    assert completed.headers["location"] == f"/api/jobs/{completed.json()['job_id']}"
    assert api.wait(completed.json()["job_id"])["state"] == "ready"
    document = api.document(completed.json()["document_id"])
    assert (document["name"], document["external_id"], document["tags"]) == ("direct.txt", "D-1", ["direct"])
    assert api.found(source, "presigned uploads") == [content.decode()]
    assert api.original(document["id"]) == content


def test_a_presigned_upload_of_bytes_that_are_there_is_a_duplicate_and_leaves_no_object(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = unique_text()
    first = api.ingested(source, "first.txt", content)
    promise = api.promised(source, "second.txt", content)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()

    completed = api.http.post(promise["complete"])

    assert completed.status_code == 200
    assert (completed.json()["document_id"], completed.json()["duplicate"]) == (first["id"], True)
    assert stores.objects.keys(document_prefix(editor.tenant_id, promise["id"])) == []


def test_a_presigned_upload_of_another_size_is_refused_and_removed(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = unique_text()
    promise = api.promised(source, "short.txt", content, size=len(content) + 5)
    # The store may refuse it already, because the length is part of the signature.
    stored = httpx.put(promise["url"], content=content, timeout=30).is_success

    completed = api.http.post(promise["complete"])

    assert completed.json()["code"] == ("upload_mismatch" if stored else "upload_missing")
    assert completed.status_code == (422 if stored else 409)
    assert stores.objects.keys(document_prefix(editor.tenant_id, promise["id"])) == []
    assert api.get("/api/documents", source_id=source)["data"] == []


def test_a_presigned_upload_of_other_bytes_is_refused_and_removed(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = unique_text()
    promise = api.promised(source, "other.txt", content, content_hash="0" * 64)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()

    completed = api.http.post(promise["complete"])

    assert (completed.status_code, completed.json()["code"]) == (422, "upload_mismatch")
    assert "SHA-256" in completed.json()["detail"]
    assert stores.objects.keys(document_prefix(editor.tenant_id, promise["id"])) == []
    assert api.http.post(promise["complete"]).status_code == 404


def test_a_presigned_upload_whose_name_lies_is_415_and_removed(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    promise = api.promised(source, "not-really.pdf", TEXT)
    httpx.put(promise["url"], content=TEXT, timeout=30).raise_for_status()

    completed = api.http.post(promise["complete"])

    assert (completed.status_code, completed.json()["code"]) == (415, "unsupported_type")
    assert "pdf" in completed.json()["accepted"]
    assert stores.objects.keys(document_prefix(editor.tenant_id, promise["id"])) == []


def test_a_presigned_upload_that_is_completed_before_its_bytes_are_put_can_still_be_completed_after(
    api: Api, source: str
) -> None:
    content = unique_text()
    promise = api.promised(source, "early.txt", content)

    early = api.http.post(promise["complete"])
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()
    completed = api.http.post(promise["complete"])

    assert (early.status_code, early.json()["code"]) == (409, "upload_missing")
    assert completed.status_code == 202


def test_a_presigned_upload_that_is_completed_twice_is_one_document(api: Api, source: str) -> None:
    content = unique_text()
    promise = api.promised(source, "twice.txt", content)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()

    first = api.http.post(promise["complete"])
    second = api.http.post(promise["complete"])

    assert first.status_code == 202
    assert (second.status_code, second.json()["code"]) == (404, "upload_not_found")
    assert api.wait(first.json()["job_id"])["state"] == "ready"
    assert api.original(first.json()["document_id"]) == content
    assert len(api.get("/api/documents", source_id=source)["data"]) == 1


def test_a_presigned_upload_that_many_complete_at_once_is_one_document_that_keeps_its_bytes(
    api: Api, source: str
) -> None:
    content = unique_text()
    promise = api.promised(source, "crowd.txt", content)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()

    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda _: api.http.post(promise["complete"]), range(8)))

    assert {answer.status_code for answer in answers} <= {200, 202, 404, 409}
    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    assert len(accepted) == 1
    assert api.wait(accepted[0]["job_id"])["state"] == "ready"
    assert api.original(accepted[0]["document_id"]) == content


def test_bytes_put_after_completion_do_not_change_the_document(api: Api, source: str) -> None:
    content = unique_text()
    promise = api.promised(source, "swapped.txt", content)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()
    completed = api.http.post(promise["complete"]).raise_for_status().json()

    httpx.put(promise["url"], content=content[::-1], timeout=30).raise_for_status()

    assert api.wait(completed["job_id"])["state"] == "ready"
    assert api.original(completed["document_id"]) == content


def test_a_presigned_upload_larger_than_the_limit_is_413_before_a_url_is_given(api: Api, source: str) -> None:
    limit = api.get("/api/version")["max_upload_bytes"]
    body = {"source_id": source, "name": "huge.txt", "size": limit + 1, "content_hash": "0" * 64}

    answer = api.http.post("/api/uploads", json=body)

    assert (answer.status_code, answer.json()["limit"], answer.json()["actual"]) == (413, limit, limit + 1)


def test_a_presigned_upload_of_nothing_is_422(api: Api, source: str) -> None:
    body = {"source_id": source, "name": "empty.txt", "size": 0, "content_hash": "0" * 64}

    assert api.http.post("/api/uploads", json=body).json()["code"] == "empty_file"


def test_a_presigned_url_opens_one_key_for_one_method(api: Api, source: str) -> None:
    promise = api.promised(source, "mine.txt", TEXT)
    address = urlsplit(promise["url"])

    elsewhere = address._replace(path=address.path[:-4] + "0000").geturl()

    assert not httpx.put(elsewhere, content=TEXT, timeout=30).is_success
    assert not httpx.get(promise["url"], timeout=30).is_success
    assert not httpx.put(address._replace(query="").geturl(), content=TEXT, timeout=30).is_success


def test_an_upload_put_in_time_and_completed_late_is_still_taken(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = unique_text()
    promise = api.promised(source, "late.txt", content)
    httpx.put(promise["url"], content=content, timeout=30).raise_for_status()
    with tenant_session(stores.sessions, editor.tenant_id) as session:
        session.execute(
            update(Upload).where(Upload.id == promise["id"]).values(expires_at=datetime.now(UTC) - timedelta(days=1))
        )

    completed = api.http.post(promise["complete"])

    assert completed.status_code == 202
    assert api.wait(completed.json()["job_id"])["state"] == "ready"
