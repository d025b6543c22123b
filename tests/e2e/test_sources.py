"""Sources come, and go when they are empty."""

from __future__ import annotations

from uuid import uuid4

import pytest

from sluice.identity.roles import Role
from tests.e2e.api import Api
from tests.e2e.running import Join


@pytest.fixture(scope="module")
def editor(join: Join) -> Api:
    return join(f"Sources {uuid4().hex}", Role.EDITOR).api


def test_an_empty_source_is_deleted_and_its_name_is_free_again(editor: Api) -> None:
    source = editor.http.post("/api/sources", json={"name": "Passing"}).json()["id"]

    assert editor.http.delete(f"/api/sources/{source}").status_code == 204

    assert editor.http.get(f"/api/sources/{source}").status_code == 404
    assert editor.http.delete(f"/api/sources/{source}").json()["code"] == "source_not_found"
    assert editor.http.post("/api/sources", json={"name": "Passing"}).status_code == 201


def test_a_source_with_a_document_stays_until_it_is_erased(editor: Api) -> None:
    source = editor.http.post("/api/sources", json={"name": uuid4().hex}).json()["id"]
    text = b"The keeper opens the lock at dawn."
    uploaded = editor.http.post(
        "/api/documents", data={"source_id": source}, files={"file": ("lock.txt", text, "text/plain")}
    ).json()

    refused = editor.http.delete(f"/api/sources/{source}")

    assert (refused.status_code, refused.json()["code"], refused.json()["documents"]) == (409, "source_not_empty", 1)
    assert editor.http.delete(f"/api/documents/{uploaded['document_id']}").is_success
    assert editor.http.delete(f"/api/sources/{source}").status_code == 204


def test_nobody_deletes_the_source_of_another_tenant(editor: Api, join: Join) -> None:
    source = editor.http.post("/api/sources", json={"name": uuid4().hex}).json()["id"]
    stranger = join(f"Strangers {uuid4().hex}", Role.ADMIN).api

    assert stranger.http.delete(f"/api/sources/{source}").status_code == 404
    assert editor.http.get(f"/api/sources/{source}").status_code == 200
