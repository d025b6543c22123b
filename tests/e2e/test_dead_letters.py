"""Dead letters over HTTP: what a failed document leaves, and what people do about it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import update

from sluice.db.unscoped import unscoped_session
from sluice.identity.roles import Role
from sluice.jobs.models import DeadLetter
from tests import files
from tests.e2e.api import Api, Json
from tests.e2e.running import Join, Member, Stores

PATH = "/api/admin/dead-letters"


@pytest.fixture
def tenant(join: Join) -> str:
    name = f"Office {uuid4().hex}"
    join(name, Role.ADMIN)
    return name


@pytest.fixture
def boss(join: Join, tenant: str) -> Api:
    """Who looks after the tenant, and not after the platform."""
    return join(tenant, Role.TENANT_ADMIN).api


def blank(api: Api, source: str, name: str = "blank.txt") -> Json:
    """A document without a word, whose job has failed."""
    job = api.ended(source, name, f"{' ' * (1 + len(name))}\n".encode())
    assert (job["state"], job["error"]["code"]) == ("failed", "no_text")
    return job


def the_letter(api: Api, job_id: str) -> Json:
    (letter,) = api.get(PATH, job_id=job_id)["data"]
    return letter  # type: ignore[no-any-return] # JSON


def deal_with(api: Api, letter: Json, action: str, **body: object) -> tuple[int, Json]:
    answer = api.http.post(f"{PATH}/{letter['id']}:{action}", json=body or None)
    return answer.status_code, answer.json()


def test_a_failed_document_leaves_a_letter_that_says_why(boss: Api) -> None:
    job = blank(boss, boss.new_source())

    letter = the_letter(boss, job["id"])

    assert (letter["origin"], letter["reason"], letter["document_id"]) == ("job", "no_text", job["document_id"])
    assert (letter["step"], letter["attempts"], letter["error_message"]) == ("ingest", 1, job["error"]["detail"])
    assert letter["allowed_actions"] == ["replay", "discard"]
    detail = boss.http.get(f"{PATH}/{letter['id']}")
    assert detail.json() == {**letter, "headers": {}, "body": None}
    unchanged = boss.http.get(f"{PATH}/{letter['id']}", headers={"If-None-Match": detail.headers["etag"]})
    assert unchanged.status_code == 304


def test_a_replay_tries_once_more_however_often_it_is_clicked(boss: Api) -> None:
    job = blank(boss, boss.new_source())
    letter = the_letter(boss, job["id"])

    with ThreadPoolExecutor(3) as clicks:
        answers = list(clicks.map(lambda _: deal_with(boss, letter, "replay"), range(3)))

    assert {(status, answer["replay_job_id"], answer["resolution"]) for status, answer in answers} == {
        (200, job["id"], "replayed")
    }
    again = boss.wait(job["id"])
    assert again["steps"][0]["attempt"] == 2
    assert deal_with(boss, letter, "replay")[0] == 200
    assert deal_with(boss, letter, "discard")[1]["code"] == "letter_resolved"
    # The same fault once more is a letter of its own.
    assert [each["resolution"] for each in boss.get(PATH, job_id=job["id"])["data"]] == [None, "replayed"]


def test_a_discarded_letter_is_not_replayed(boss: Api) -> None:
    letter = the_letter(boss, blank(boss, boss.new_source())["id"])

    assert [deal_with(boss, letter, "discard")[0] for _ in range(2)] == [200, 200]
    status, answer = deal_with(boss, letter, "replay")

    assert (status, answer["code"], answer["resolution"]) == (409, "letter_resolved", "discarded")
    shown = boss.get(f"{PATH}/{letter['id']}")
    assert (shown["resolution"], shown["allowed_actions"]) == ("discarded", [])


def test_a_document_is_read_anew_with_other_options(boss: Api, tmp_path: Path) -> None:
    source = boss.new_source()
    page = files.pdf_document(tmp_path / "cut.pdf", [["The ferry leaves at noon."], ["The bus leaves at one."]])
    job = boss.ended(source, "page.html", b"<!doctype html><html><body><script>only a script</script></body></html>")
    letter = the_letter(boss, job["id"])
    assert boss.ingested(source, page.name, page.read_bytes())["searchable"]

    status, answer = deal_with(boss, letter, "replay", options={"parser": "plain"})

    assert (status, answer["resolution"]) == (200, "replayed")
    replayed = boss.wait(answer["replay_job_id"])
    assert replayed["id"] != job["id"]
    assert (replayed["kind"], replayed["state"], replayed["options"]) == ("replay", "ready", {"parser": "plain"})
    assert boss.document(job["document_id"])["searchable"]
    assert deal_with(boss, letter, "replay", options={"parser": "plain"})[1]["replay_job_id"] == replayed["id"]


@pytest.mark.parametrize(
    "options",
    [{"parser": "magic"}, {"parser": "pypdf"}, {"skip_pages": [1]}, {"skip_pages": [0]}, {"ocr": "maybe"}, {"fast": 1}],
)
def test_options_that_make_no_sense_for_the_file_are_422_and_close_nothing(boss: Api, options: Json) -> None:
    letter = the_letter(boss, blank(boss, boss.new_source())["id"])

    status, answer = deal_with(boss, letter, "replay", options=options)

    assert (status, answer["code"]) == (422, "invalid")
    assert boss.get(f"{PATH}/{letter['id']}")["resolved_at"] is None


def test_letters_of_a_kind_are_grouped_and_dealt_with_once_their_number_is_confirmed(boss: Api) -> None:
    source = boss.new_source()
    jobs = [blank(boss, source, f"{'x' * n}.txt") for n in range(1, 4)]
    (group,) = boss.get(f"{PATH}/groups")["data"]
    kind = {"filter": {"signature": group["signature"]}}

    def all_of(action: str, body: Json) -> tuple[int, Json]:
        answer = boss.http.post(f"{PATH}:{action}", json=body)
        return answer.status_code, answer.json()

    assert (group["open"], group["reason"], group["step"]) == (3, "no_text", "ingest")
    for action in ("replay", "discard"):
        assert all_of(action, {"filter": {}, "confirm": 3})[1]["code"] == "filter_empty"
        assert all_of(action, {"confirm": 3})[1]["code"] == "filter_empty"
        assert all_of(action, {"filter": {"signature": "*"}, "confirm": 3})[0] == 422
        asked, wrong = all_of(action, kind), all_of(action, {**kind, "confirm": 2})
        assert (asked[0], asked[1]["code"], asked[1]["matching"]) == (409, "confirmation_needed", 3)
        assert (wrong[0], wrong[1]["code"], wrong[1]["matching"]) == (409, "confirmation_mismatch", 3)
    assert all_of("replay", {**kind, "confirm": 3, "options": {"parser": "magic"}})[0] == 422
    assert len(boss.get(PATH, resolved=False)["data"]) == 3

    assert all_of("replay", {**kind, "confirm": 3}) == (200, {"matching": 3, "changed": 3, "skipped": 0})
    assert [boss.wait_for(job["id"], lambda each: each["steps"][0]["attempt"] == 2)["id"] for job in jobs]
    assert {boss.wait(job["id"])["state"] for job in jobs} == {"failed"}
    assert all_of("discard", {**kind, "confirm": 3}) == (200, {"matching": 3, "changed": 3, "skipped": 0})
    assert boss.get(f"{PATH}/groups")["data"] == []
    assert len(boss.get(PATH, resolved=True)["data"]) == 6


def test_the_letters_of_an_erased_document_go_with_it(boss: Api) -> None:
    job = blank(boss, boss.new_source())
    letter = the_letter(boss, job["id"])

    boss.http.delete(f"/api/documents/{job['document_id']}").raise_for_status()

    assert boss.http.get(f"{PATH}/{letter['id']}").json()["code"] == "dead_letter_not_found"


def test_only_administrators_of_the_tenant_see_and_touch_its_letters(
    boss: Api, join: Join, tenant: str, stranger: Member
) -> None:
    letter = the_letter(boss, blank(boss, boss.new_source())["id"])
    for role in (Role.VIEWER, Role.EDITOR):
        api = join(tenant, role).api
        answers = [api.http.get(PATH), api.http.get(f"{PATH}/groups"), api.http.get(f"{PATH}/{letter['id']}")]
        answers += [api.http.post(f"{PATH}/{letter['id']}:{action}") for action in ("replay", "discard")]
        assert {answer.status_code for answer in answers} == {403}

    for action in ("replay", "discard"):
        status, answer = deal_with(stranger.api, letter, action)
        assert (status, answer["code"]) == (404, "dead_letter_not_found")
    assert letter["id"] not in stranger.api.every_id(PATH)
    assert boss.get(f"{PATH}/{letter['id']}")["resolved_at"] is None


def test_letters_of_no_tenant_are_for_those_who_run_the_platform(
    boss: Api, join: Join, tenant: str, stores: Stores
) -> None:
    letter = the_letter(boss, blank(boss, boss.new_source())["id"])
    with unscoped_session(stores.unscoped) as session:
        session.execute(
            update(DeadLetter).where(DeadLetter.id == letter["id"]).values(tenant_id=None, job_id=None, step_id=None)
        )
    admin = join(tenant, Role.ADMIN).api
    nobodys = {"unattributed": "true"}
    address = f"{PATH}/{letter['id']}"

    refused = [boss.http.get(path, params=nobodys) for path in (PATH, f"{PATH}/groups", address)]
    refused.append(boss.http.post(f"{address}:discard", params=nobodys))
    assert {(answer.status_code, answer.json()["needed_role"]) for answer in refused} == {(403, "admin")}
    assert [api.http.get(address).status_code for api in (boss, admin)] == [404, 404]

    assert admin.get(address, **nobodys)["allowed_actions"] == ["discard"]
    assert letter["id"] in {each["id"] for each in admin.get(PATH, limit=100, resolved=False, **nobodys)["data"]}
    groups = admin.get(f"{PATH}/groups", **nobodys)["data"]
    assert letter["signature"] in {group["signature"] for group in groups}
    assert admin.http.post(f"{address}:replay").status_code == 404
    assert admin.http.post(f"{address}:discard", params=nobodys).json()["resolution"] == "discarded"
    assert admin.get("/api/admin/audit", target_id=letter["id"])["data"][0]["action"] == "dead_letter.discard"
