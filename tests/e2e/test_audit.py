"""The audit log over HTTP: what administrators did, and that nobody else reads it."""

from __future__ import annotations

from uuid import uuid4

import pytest

from sluice.identity.roles import Role
from tests.e2e.api import Api, Json
from tests.e2e.running import Join, Member

PATH = "/api/admin/audit"


@pytest.fixture
def tenant(join: Join) -> str:
    name = f"Office {uuid4().hex}"
    join(name, Role.ADMIN)
    return name


@pytest.fixture
def boss(join: Join, tenant: str) -> Member:
    return join(tenant, Role.TENANT_ADMIN)


def entries(api: Api, **narrowed: str) -> list[Json]:
    return list(api.get(PATH, **narrowed)["data"])


def test_what_administrators_do_is_written_down_with_who_and_for_which_request(boss: Member) -> None:
    api = boss.api
    source = api.new_source()
    job = api.ended(source, "blank.txt", b" \n")
    request_id = f"test-{uuid4().hex}"
    api.http.post(f"/api/admin/jobs/{job['id']}:retry", headers={"X-Request-ID": request_id}).raise_for_status()
    api.wait(job["id"])
    letter = api.get("/api/admin/dead-letters", resolved=False)["data"][0]
    api.http.post(f"/api/admin/dead-letters/{letter['id']}:discard").raise_for_status()
    bulk = {"filter": {"error_code": "no_text"}, "confirm": 1}
    api.http.post("/api/admin/jobs:retry", json=bulk).raise_for_status()
    api.wait(job["id"])
    api.http.delete(f"/api/documents/{job['document_id']}").raise_for_status()
    api.http.delete(f"/api/sources/{source}").raise_for_status()

    log = entries(api)[::-1]

    facts = {"filter": bulk["filter"], "matching": 1}
    assert [(each["action"], each["target_id"]) for each in log] == [
        ("job.retry", job["id"]),
        ("dead_letter.discard", letter["id"]),
        ("jobs.retry", None),
        ("jobs.retry.done", None),
        ("document.delete", job["document_id"]),
        ("source.delete", source),
    ]
    assert [each["number"] for each in log] == [1, 2, 3, 4, 5, 6]
    assert {(each["actor_id"], each["actor"]) for each in log} == {(str(boss.user_id), boss.email)}
    assert log[0]["request_id"] == request_id
    assert [each["detail"] for each in log[2:4]] == [facts, {**facts, "changed": 1, "skipped": 0}]
    assert entries(api, target_id=source) == [log[-1]]
    verdict = api.get(f"{PATH}:verify")
    assert verdict == {"intact": True, "entries": 6, "head": log[-1]["digest"], "broken_at": None, "why": None}


def test_an_upload_that_tries_a_failed_document_again_is_written_down_as_such(boss: Member) -> None:
    api = boss.api
    source = api.new_source()
    failed = api.ended(source, "blank.txt", b" \n")

    again = api.ended(source, "blank.txt", b" \n")

    (entry,) = entries(api)
    assert (again["id"], again["state"], again["steps"][0]["attempt"]) == (failed["id"], "failed", 2)
    assert (entry["action"], entry["target_id"], entry["actor"]) == ("job.retry", failed["id"], boss.email)
    assert entry["detail"] == {"because": "uploaded again"}


def test_what_was_refused_is_not_written_down(boss: Member) -> None:
    api = boss.api
    source = api.new_source()
    document = api.ingested(source, "words.txt", b"Some words.")

    refused = [
        api.http.post(f"/api/admin/jobs/{document['job_id']}:retry"),
        api.http.post(f"/api/admin/jobs/{uuid4()}:cancel"),
        api.http.post("/api/admin/jobs:cancel", json={"filter": {"kind": "ingest"}, "confirm": 5}),
        api.http.delete(f"/api/documents/{uuid4()}"),
        api.http.delete(f"/api/sources/{source}"),
    ]

    assert [answer.status_code for answer in refused] == [409, 404, 409, 404, 409]
    assert entries(api) == []


def test_pages_of_the_log_show_each_entry_once(boss: Member) -> None:
    api = boss.api
    for _ in range(5):
        api.http.delete(f"/api/sources/{api.new_source()}").raise_for_status()

    page = api.get(PATH, limit=3)
    rest = api.get(PATH, limit=3, cursor=page["next_cursor"])

    assert [each["number"] for each in (*page["data"], *rest["data"])] == [5, 4, 3, 2, 1]
    assert (page["has_more"], rest["has_more"]) == (True, False)


@pytest.mark.parametrize("path", [PATH, "/api/admin/jobs", "/api/admin/dead-letters"])
def test_a_cursor_that_this_api_did_not_give_out_is_422(boss: Member, path: str) -> None:
    answer = boss.api.http.get(path, params={"cursor": "nonsense"})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


def test_the_log_is_the_tenant_s_and_for_its_administrators(
    boss: Member, join: Join, tenant: str, stranger: Member
) -> None:
    boss.api.http.delete(f"/api/sources/{boss.api.new_source()}").raise_for_status()
    (mine,) = entries(boss.api)

    for role in (Role.VIEWER, Role.EDITOR):
        http = join(tenant, role).api.http
        assert [http.get(path).status_code for path in (PATH, f"{PATH}:verify")] == [403, 403]
    assert mine["id"] not in stranger.api.every_id(PATH)
    assert entries(stranger.api, target_id=mine["target_id"]) == []
