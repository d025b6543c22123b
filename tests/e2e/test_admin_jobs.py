"""Administrators and jobs over HTTP and on the command line: look, cancel, try again, one or many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, text, update

from sluice.errors import SluiceError
from sluice.identity.roles import Role
from sluice.jobs import actions, claims, repository
from sluice.jobs.models import Job, OutboxMessage
from sluice.jobs.state import ALLOWED_ACTIONS, Action, JobState
from tests.e2e.api import Api, Json
from tests.e2e.faults import chronicle
from tests.e2e.running import Join, Member, Stores
from tests.integration.job_bench import Bench

BOOM: Final = SluiceError("The parser tripped.", code="boom")


@pytest.fixture
def tenant(join: Join) -> str:
    """A tenant of this test's own, so that a filter fits no other test's jobs."""
    name = f"Office {uuid4().hex}"
    join(name, Role.ADMIN)
    return name


@pytest.fixture
def boss(join: Join, tenant: str) -> Member:
    """Who looks after the tenant, and not after the platform."""
    return join(tenant, Role.TENANT_ADMIN)


@pytest.fixture
def bench(stores: Stores, boss: Member) -> Bench:
    """The tenant's jobs, on a queue that no worker consumes."""
    return Bench(stores, boss.tenant_id, f"test.{uuid4().hex}")


def end_in(end: Callable[[Bench, claims.Claim], object]) -> Callable[[Bench, UUID], object]:
    return lambda bench, step_id: end(bench, bench.claimed(step_id))


def finish(bench: Bench, claim: claims.Claim) -> None:
    with bench.session() as session:
        claims.finish(session, claim, {"chunks": 3})


def fail(bench: Bench, claim: claims.Claim) -> None:
    with bench.session() as session:
        claims.fail(session, claim, BOOM)


def cancel(bench: Bench, step_id: UUID) -> None:
    with bench.session() as session:
        actions.cancel(session, bench.job_of(step_id).id)


REACHED: Final[dict[JobState, Callable[[Bench, UUID], object]]] = {
    JobState.QUEUED: lambda bench, step_id: None,
    JobState.RUNNING: lambda bench, step_id: bench.claimed(step_id),
    JobState.READY: end_in(finish),
    JobState.FAILED: end_in(fail),
    JobState.CANCELED: cancel,
}
AFTERWARDS: Final = {
    (Action.CANCEL, JobState.QUEUED): JobState.CANCELED,
    # Its worker stops it at the next look.
    (Action.CANCEL, JobState.RUNNING): JobState.RUNNING,
    (Action.RETRY, JobState.FAILED): JobState.QUEUED,
    (Action.RETRY, JobState.CANCELED): JobState.QUEUED,
}


def job_in(bench: Bench, state: JobState) -> str:
    step_id = bench.submit()
    REACHED[state](bench, step_id)
    return str(bench.job_of(step_id).id)


def act(api: Api, path: str, **body: object) -> tuple[int, Json]:
    answer = api.http.post(f"/api/admin/{path}", json=body or None)
    return answer.status_code, answer.json()


@pytest.mark.parametrize(("action", "state"), list(product(Action, JobState)))
def test_a_state_accepts_exactly_the_actions_that_it_names(
    bench: Bench, boss: Member, action: Action, state: JobState
) -> None:
    job_id = job_in(bench, state)
    named = boss.api.job(job_id)["allowed_actions"]

    status, answer = act(boss.api, f"jobs/{job_id}:{action}")

    assert named == list(ALLOWED_ACTIONS[state])
    if action in named:
        assert (status, answer["state"]) == (200, AFTERWARDS[action, state])
        return
    assert (status, answer["code"], answer["allowed_actions"]) == (409, "action_not_allowed", named)
    assert boss.api.job(job_id)["state"] == state


def test_a_second_click_cancels_a_running_job_no_more_and_tries_a_failed_one_once(bench: Bench, boss: Member) -> None:
    running, failed = job_in(bench, JobState.RUNNING), job_in(bench, JobState.FAILED)

    assert [act(boss.api, f"jobs/{running}:cancel")[0] for _ in range(2)] == [200, 200]
    with ThreadPoolExecutor(2) as clicks:
        statuses = sorted(clicks.map(lambda _: act(boss.api, f"jobs/{failed}:retry")[0], range(2)))

    assert statuses == [200, 409]
    (step,) = boss.api.job(failed)["steps"]
    assert (step["attempt"], step["state"]) == (1, "queued")


def test_what_was_tried_is_shown_with_its_dead_letter(bench: Bench, boss: Member) -> None:
    job_id = job_in(bench, JobState.FAILED)

    job = boss.api.get(f"/api/admin/jobs/{job_id}")

    (attempt,) = job["attempts"]
    assert (attempt["step"], attempt["attempt"], attempt["worker"], attempt["outcome"]) == (
        "ingest",
        1,
        "first",
        "failed",
    )
    assert attempt["error"] == {"code": "boom", "detail": "The parser tripped."}
    assert attempt["started_at"] <= attempt["ended_at"]
    (letter,) = job["dead_letters"]
    assert (letter["reason"], letter["resolved_at"]) == ("boom", None)
    act(boss.api, f"jobs/{job_id}:retry")
    again = boss.api.get(f"/api/admin/jobs/{job_id}")
    assert again["dead_letters"][0]["resolution"] == "retried"
    assert again["attempts"] == job["attempts"]


def test_a_job_shows_its_place_in_line_and_what_is_left_and_its_result(bench: Bench, boss: Member) -> None:
    first, second = bench.submit(), bench.submit()
    waiting = str(bench.job_of(second).id)

    assert [boss.api.job(str(bench.job_of(step).id))["place"] for step in (first, second)] == [1, 2]
    claim = bench.claimed(second)
    with bench.session() as session:
        claims.progress(session, claim, "embed", 0, 40)
    assert boss.api.job(waiting)["eta_seconds"] is None
    with bench.session() as session:
        claims.progress(session, claim, "embed", 10, 40)
        began = func.now() - text("interval '20 seconds'")
        session.execute(update(Job).where(Job.id == claim.job_id).values(stage_started_at=began))
    running = boss.api.job(waiting)
    assert running["place"] is None
    assert 60 <= running["eta_seconds"] < 120
    finish(bench, claim)
    ended = boss.api.job(waiting)
    assert (ended["result"], ended["eta_seconds"], ended["place"]) == ({"chunks": 3}, None, None)
    assert ended["options"] == {}


def test_seconds_and_places_that_change_by_themselves_make_no_new_etag(bench: Bench, boss: Member) -> None:
    first, second = bench.submit(), str(bench.job_of(bench.submit()).id)
    seen = boss.api.http.get(f"/api/jobs/{second}")
    with bench.session() as session:
        session.execute(delete(OutboxMessage).where(OutboxMessage.step_id == first))

    again = boss.api.http.get(f"/api/jobs/{second}", headers={"If-None-Match": seen.headers["etag"]})

    assert (seen.json()["place"], boss.api.job(second)["place"]) == (2, 1)
    assert again.status_code == 304


def test_events_say_how_long_it_will_take(api: Api, source: str) -> None:
    job = api.accepted(source, "long.txt", chronicle())

    events = api.watch(job["job_id"])

    estimated = [event.data["eta_seconds"] for event in events if event.data["step"] == "embed" and event.data["done"]]
    assert events[-1].data["eta_seconds"] is None
    assert all("place" in event.data for event in events)
    assert any(seconds is not None and seconds >= 0 for seconds in estimated)


def test_a_filter_lists_the_jobs_that_it_fits_page_by_page(bench: Bench, boss: Member) -> None:
    failed = [job_in(bench, JobState.FAILED) for _ in range(3)]
    job_in(bench, JobState.QUEUED)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    for path in ("/api/admin/jobs", "/api/jobs"):
        page = boss.api.get(path, error_code="boom", limit=2)
        rest = boss.api.get(path, error_code="boom", limit=2, cursor=page["next_cursor"])
        assert [job["id"] for job in (*page["data"], *rest["data"])] == failed[::-1]
        assert (page["has_more"], rest["has_more"]) == (True, False)
        assert boss.api.get(path, created_after=tomorrow)["data"] == []
        assert boss.api.get(path, source_id=str(uuid4()))["data"] == []


@pytest.mark.parametrize(
    "query",
    ["state=unheard", "stat=failed", "created_after=yesterday", "created_after=2026-01-01", "parent_id=7", "limit=0"],
)
def test_a_filter_that_makes_no_sense_is_422_and_not_a_wider_one(boss: Member, query: str) -> None:
    answer = boss.api.http.get(f"/api/admin/jobs?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_many_jobs_are_changed_once_their_number_is_confirmed(bench: Bench, boss: Member) -> None:
    jobs = [job_in(bench, state) for state in (JobState.QUEUED, JobState.QUEUED, JobState.RUNNING, JobState.FAILED)]
    wanted = {"kind": "test"}

    asked = act(boss.api, "jobs:cancel", filter=wanted)
    wrong = act(boss.api, "jobs:cancel", filter=wanted, confirm=4)

    assert (asked[0], asked[1]["code"], asked[1]["matching"]) == (409, "confirmation_needed", 3)
    assert (wrong[0], wrong[1]["code"], wrong[1]["matching"]) == (409, "confirmation_mismatch", 3)
    assert [boss.api.job(job)["state"] for job in jobs] == ["queued", "queued", "running", "failed"]
    done = {"matching": 3, "changed": 3, "skipped": 0}
    assert act(boss.api, "jobs:cancel", filter=wanted, confirm=3) == (200, done)
    assert [boss.api.job(job)["state"] for job in jobs] == ["canceled", "canceled", "running", "failed"]
    assert act(boss.api, "jobs:retry", filter=wanted, confirm=3) == (200, done)
    assert [boss.api.job(job)["state"] for job in jobs] == ["queued", "queued", "running", "queued"]


@pytest.mark.parametrize("action", ["cancel", "retry"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"filter": {}, "confirm": 1}, "filter_empty"),
        ({"filter": {"state": None}, "confirm": 1}, "filter_empty"),
        ({"confirm": 1}, "filter_empty"),
        ({"filter": {"stat": "failed"}, "confirm": 1}, "invalid"),
        ({"filter": {"state": "failed", "tenant_id": str(uuid4())}, "confirm": 1}, "invalid"),
        ({"filter": {"kind": "in\x00gest"}, "confirm": 1}, "invalid"),
        ({"filter": {"source_id": "all"}, "confirm": 1}, "invalid"),
        ({"filter": {"state": "failed"}, "confirm": -1}, "invalid"),
        ({"filter": {"state": "failed"}, "confirm": "all"}, "invalid"),
    ],
)
def test_a_filter_that_is_empty_or_wrong_changes_nothing(
    bench: Bench, boss: Member, action: str, body: Json, code: str
) -> None:
    job_id = job_in(bench, JobState.QUEUED if action == "cancel" else JobState.FAILED)
    before = boss.api.job(job_id)["state"]

    status, answer = act(boss.api, f"jobs:{action}", **body)

    assert (status, answer["code"]) == (422, code)
    assert boss.api.job(job_id)["state"] == before


def test_only_administrators_of_the_tenant_change_its_jobs(
    bench: Bench, join: Join, tenant: str, stranger: Member
) -> None:
    job_id = job_in(bench, JobState.QUEUED)
    for role in (Role.VIEWER, Role.EDITOR):
        api = join(tenant, role).api
        for path in (f"jobs/{job_id}:cancel", f"jobs/{job_id}:retry", "jobs:cancel", "jobs:retry"):
            status, answer = act(api, path, filter={"kind": "test"}, confirm=1)
            assert (status, answer["needed_role"]) == (403, "tenant_admin")
        assert api.http.get(f"/api/admin/jobs/{job_id}").status_code == 403
        assert api.job(job_id)["state"] == "queued"

    assert act(stranger.api, f"jobs/{job_id}:cancel")[1]["code"] == "job_not_found"
    assert act(stranger.api, f"jobs/{uuid4()}:retry")[0] == 404
    # Another tenant's jobs match nothing, whatever is confirmed.
    status, answer = act(stranger.api, "jobs:cancel", filter={"kind": "test"}, confirm=1)
    assert (status, answer["matching"]) == (409, 0)
    assert bench.job_of(UUID(str(bench_step(bench, job_id)))).state is JobState.QUEUED


def bench_step(bench: Bench, job_id: str) -> UUID:
    with bench.session() as session:
        return repository.steps_of(session, UUID(job_id))[0].id


@pytest.mark.parametrize("path", ["jobs/7:cancel", "jobs/7:retry", "dead-letters/7:replay", "dead-letters/7:discard"])
def test_an_id_that_is_none_is_422(boss: Member, path: str) -> None:
    assert act(boss.api, path)[0] == 422
