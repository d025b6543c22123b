"""Sources come, and go when they are empty."""

from __future__ import annotations

from uuid import uuid4

from tests.e2e.running import Member


def test_an_empty_source_is_deleted_and_its_name_is_free_again(editor: Member) -> None:
    name = uuid4().hex
    source = editor.api.http.post("/api/sources", json={"name": name}).json()["id"]

    assert editor.api.http.delete(f"/api/sources/{source}").status_code == 204

    assert editor.api.http.get(f"/api/sources/{source}").status_code == 404
    assert editor.api.http.delete(f"/api/sources/{source}").json()["code"] == "source_not_found"
    assert editor.api.http.post("/api/sources", json={"name": name}).status_code == 201


def test_a_source_with_a_document_stays_until_it_is_erased(editor: Member) -> None:
    source = editor.api.http.post("/api/sources", json={"name": uuid4().hex}).json()["id"]
    text = b"The keeper opens the lock at dawn."
    uploaded = editor.api.http.post(
        "/api/documents", data={"source_id": source}, files={"file": ("lock.txt", text, "text/plain")}
    ).json()

    refused = editor.api.http.delete(f"/api/sources/{source}")

    assert (refused.status_code, refused.json()["code"], refused.json()["documents"]) == (409, "source_not_empty", 1)
    assert editor.api.http.delete(f"/api/documents/{uploaded['document_id']}").is_success
    assert editor.api.http.delete(f"/api/sources/{source}").status_code == 204


def test_nobody_deletes_the_source_of_another_tenant(editor: Member, stranger: Member) -> None:
    source = editor.api.http.post("/api/sources", json={"name": uuid4().hex}).json()["id"]

    assert stranger.api.http.delete(f"/api/sources/{source}").status_code == 404
    assert editor.api.http.get(f"/api/sources/{source}").status_code == 200
