"""One name, many uploads; one content, many names; and what is left of them when they are erased."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from sluice.identity.roles import Role
from tests.e2e.api import Api
from tests.e2e.running import Join, Member, Stores


def draft(word: str) -> bytes:
    return f"In this draft of {uuid4().hex} the harbour master is called {word}.".encode()


def test_content_that_a_newer_version_replaced_may_come_back_under_another_name(api: Api, source: str) -> None:
    old, new = draft("Anna"), draft("Boris")
    first = api.ingested(source, "handbook.txt", old)
    second = api.ingested(source, "handbook.txt", new)

    kept = api.ingested(source, "handbook-old.txt", old)

    assert first["id"] == second["id"] != kept["id"]
    assert {passage["document_name"] for passage in api.search(source, "harbour master")["passages"]} == {
        "handbook.txt",
        "handbook-old.txt",
    }


def test_uploading_older_content_again_withdraws_what_was_uploaded_after_it(api: Api, source: str) -> None:
    long = " ".join(f"Sentence {n} of {uuid4().hex} is about something else." for n in range(300)).encode()
    wanted = draft("Clara")
    first = api.ingested(source, "handbook.txt", wanted)
    mistake = api.accepted(source, "handbook.txt", long)

    again = api.upload(source, "handbook.txt", wanted)

    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert api.wait(mistake["job_id"])["state"] == "canceled"
    document = api.document(first["id"])
    assert (document["state"], document["version"]["number"], document["searchable"]) == ("ready", 1, True)
    assert "Clara" in api.found(source, "harbour master")[0]


def test_different_contents_under_one_name_at_once_become_versions_and_leave_nothing_when_erased(
    join: Join, stores: Stores
) -> None:
    member = join(f"Versions {uuid4().hex}", Role.ADMIN)
    source = member.api.new_source()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: member.api.upload(source, "one.txt", draft(f"Number {n}")), range(6)))
    assert {answer.status_code for answer in answers} == {202}
    (document_id,) = {answer.json()["document_id"] for answer in answers}
    for answer in answers:
        member.api.wait(answer.json()["job_id"])
    assert len(member.api.search(source, "harbour master")["passages"]) == 1

    receipt = member.api.http.delete(f"/api/documents/{document_id}")

    assert (receipt.status_code, receipt.json()["objects"]) == (200, 0)
    assert stores.objects.keys(f"tenant/{member.tenant_id}/") == []


def test_a_failed_file_uploaded_again_by_many_at_once_is_tried_again_once(api: Api, source: str) -> None:
    content = b"\n \n\t\n"
    failed = api.ended(source, f"{uuid4().hex}.txt", content)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "no_text")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: api.upload(source, "again.txt", content), range(8)))

    assert {answer.status_code for answer in answers} <= {200, 202}
    assert {answer.json()["job_id"] for answer in answers} == {failed["id"]}
    assert api.wait(failed["id"])["state"] == "failed"


@pytest.mark.parametrize("text", ["\x00", "a\x00b"])
def test_text_that_no_store_takes_is_refused_in_words(api: Api, source: str, text: str) -> None:
    answers = [
        api.http.post("/api/auth/login", json={"email": text, "password": "x"}),
        api.http.post("/api/search", json={"question": f"who {text}"}),
        api.http.post("/api/chat", json={"question": f"who {text}"}),
        api.upload(source, "a.txt", draft("Dora"), tags=text),
        api.upload(source, "a.txt", draft("Dora"), external_id=text),
    ]

    assert [answer.status_code for answer in answers] == [422] * 5, [answer.text for answer in answers]


def test_an_event_id_that_is_a_number_only_to_unicode_is_ignored(api: Api, source: str) -> None:
    job = api.ended(source, "harbour.txt", draft("Emil"))

    stream = api.http.get(f"/api/jobs/{job['id']}/events", headers={b"Last-Event-ID": "²".encode("latin-1")})

    assert stream.status_code == 200
    assert "event: job.end" in stream.text


def test_an_administrator_cancels_and_retries_a_job_and_an_editor_may_not(
    join: Join, tenant_name: str, editor: Member, source: str
) -> None:
    administrator = join(tenant_name, Role.TENANT_ADMIN)
    long = " ".join(f"Sentence {n} of {uuid4().hex} says something." for n in range(400)).encode()
    job_id = editor.api.accepted(source, "long.txt", long)["job_id"]
    path = f"/api/admin/jobs/{job_id}"

    refused = editor.api.http.post(f"{path}:cancel")
    canceled = administrator.api.http.post(f"{path}:cancel")
    ended = editor.api.wait(job_id)
    nothing = editor.api.found(source, "Sentence says something")
    twice = administrator.api.http.post(f"{path}:cancel")
    retried = administrator.api.http.post(f"{path}:retry")

    assert (refused.status_code, canceled.status_code) == (403, 200)
    assert (ended["state"], nothing) == ("canceled", [])
    assert (twice.status_code, twice.json()["allowed_actions"]) == (409, ["retry"])
    assert retried.status_code == 200
    assert editor.api.wait(job_id)["state"] == "ready"
    assert editor.api.found(source, "Sentence says something")
