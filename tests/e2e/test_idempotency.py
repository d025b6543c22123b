"""A creating request that is sent again, by a client that never saw the answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from sluice.db.session import tenant_session
from sluice.identity.models import IdempotencyKey
from tests.e2e.running import Member, Stores

TEXT = b"The keeper opens the lock at dawn."


def named(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest.fixture
def key() -> str:
    return uuid4().hex


def new_source(member: Member, key: str, name: str) -> httpx.Response:
    return member.api.http.post("/api/sources", json={"name": name}, headers=named(key))


def uploaded(member: Member, source: str, key: str, content: bytes = TEXT, **fields: str) -> httpx.Response:
    return member.api.http.post(
        "/api/documents",
        data={"source_id": source, **fields},
        files={"file": ("lock.txt", content)},
        headers=named(key),
    )


def test_sent_again_it_gets_the_first_answer_and_creates_nothing(editor: Member, key: str) -> None:
    name = uuid4().hex

    first, second = new_source(editor, key, name), new_source(editor, key, name)

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["X-Request-ID"] != first.headers["X-Request-ID"]


def test_members_in_another_order_are_the_same_request(editor: Member, source: str, key: str) -> None:
    body = {"source_id": source, "name": "a.txt", "size": 3, "content_hash": "0" * 64}

    first = editor.api.http.post("/api/uploads", json=body, headers=named(key))
    second = editor.api.http.post("/api/uploads", json=dict(reversed(body.items())), headers=named(key))

    assert first.status_code == 201
    assert second.json() == first.json()


def test_another_request_under_the_same_key_is_refused(editor: Member, source: str, key: str) -> None:
    new_source(editor, key, uuid4().hex)

    for refused in (new_source(editor, key, uuid4().hex), uploaded(editor, source, key)):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert editor.api.get("/api/documents", source_id=source)["data"] == []


def test_an_upload_is_told_by_what_it_says_and_not_by_its_boundaries(editor: Member, source: str, key: str) -> None:
    first = uploaded(editor, source, key, tags="locks")
    second = uploaded(editor, source, key, tags="locks")
    other_bytes = uploaded(editor, source, key, TEXT + b" And closes it.", tags="locks")
    other_tags = uploaded(editor, source, key, tags="keepers")

    # Without the key the second would be a 200 with `duplicate`.
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert [each.json()["code"] for each in (other_bytes, other_tags)] == ["idempotency_key_reused"] * 2


def test_what_was_refused_may_be_mended_and_sent_under_the_same_key(editor: Member, key: str) -> None:
    taken = uuid4().hex
    editor.api.http.post("/api/sources", json={"name": taken})

    assert new_source(editor, key, taken).json()["code"] == "source_exists"
    assert new_source(editor, key, "").status_code == 422
    assert new_source(editor, key, uuid4().hex).status_code == 201


def test_keys_are_each_users_own(editor: Member, stranger: Member, key: str) -> None:
    name = uuid4().hex

    own, others = new_source(editor, key, name), new_source(stranger, key, name)

    assert (own.status_code, others.status_code) == (201, 201)
    assert own.json()["id"] != others.json()["id"]


def test_of_many_at_once_one_creates_and_all_learn_of_it(editor: Member, key: str) -> None:
    name = uuid4().hex

    def ask(_: int) -> httpx.Response:
        while (answer := new_source(editor, key, name)).status_code == 409:
            assert answer.json()["code"] == "request_in_progress"
        return answer

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(16)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize("malformed", ["", "x" * 256, "two words"])
def test_a_malformed_key_is_refused(editor: Member, malformed: str) -> None:
    refused = new_source(editor, malformed, uuid4().hex)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


@pytest.mark.parametrize(("age", "expected"), [(timedelta(seconds=1), 409), (timedelta(minutes=2), 201)])
def test_a_server_that_died_holds_a_request_up_for_a_minute(
    editor: Member, stores: Stores, key: str, age: timedelta, expected: int
) -> None:
    name = uuid4().hex
    made = new_source(editor, key, name)
    unanswered(stores, editor, key, age)
    # As if the server had died before it made the source.
    editor.api.http.delete(made.headers["Location"])

    again = new_source(editor, key, name)

    assert again.status_code == expected, again.text
    if expected == 201:
        assert new_source(editor, key, name).json() == again.json()


def unanswered(stores: Stores, member: Member, key: str, age: timedelta) -> None:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        session.execute(
            update(IdempotencyKey).where(IdempotencyKey.key == key).values(status=None, begun_at=func.now() - age)
        )
        assert session.scalar(select(func.count()).where(IdempotencyKey.key == key)) == 1


@pytest.mark.parametrize(
    "path", [lambda source: "/api/admin/doctor", lambda source: f"/api/admin/sources/{source}:reindex"]
)
def test_maintenance_is_begun_once(stranger: Member, key: str, path: Callable[[str], str]) -> None:
    source = stranger.api.new_source()
    body = {"json": {}} if "doctor" in path(source) else {}

    first = stranger.api.http.post(path(source), headers=named(key), **body)
    stranger.api.wait(first.json()["id"])
    second = stranger.api.http.post(path(source), headers=named(key), **body)

    assert first.status_code == 202
    assert UUID(second.json()["id"]) == UUID(first.json()["id"])
