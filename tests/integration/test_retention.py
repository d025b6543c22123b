"""What is not kept for ever, sweeps that are due, and the drift that they report, over all tenants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from sluice.db.unscoped import unscoped_session
from sluice.identity.models import Tenant
from sluice.ids import first_id_of, new_id
from sluice.jobs import lanes, maintenance, retention
from sluice.jobs.models import DeadLetter, Job, JobAttempt, JobStep, OutboxMessage, Worker
from sluice.jobs.state import JobState
from sluice.settings import JobSettings
from tests.e2e.running import Stores
from tests.integration.job_bench import Bench

pytestmark = pytest.mark.usefixtures("no_dispatcher")
SETTINGS = JobSettings(attempts_days=30, doctor_hours=24)
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=120)
YESTERDAY = NOW - timedelta(hours=25)
LATELY = NOW - timedelta(hours=1)


def count(bench: Bench, table: Any, *wanted: Any) -> int:
    with bench.as_dispatcher() as session:
        return session.scalar(select(func.count()).select_from(table).where(*wanted)) or 0


def attempted(bench: Bench, *, state: JobState, at: datetime) -> UUID:
    """An attempt of that time, of a job that is now in this state."""
    step_id = bench.submit()
    with bench.session() as session:
        step = session.scalars(select(JobStep).where(JobStep.id == step_id)).one()
        job = session.scalars(select(Job).where(Job.id == step.job_id)).one()
        job.state, job.finished_at = state, at if state is JobState.READY else None
        attempt = JobAttempt(id=first_id_of(at), step_id=step_id, attempt=1, worker="w", started_at=at, ended_at=at)
        attempt.id = UUID(int=attempt.id.int | uuid4().int >> 68)
        session.add(attempt)
    return step_id


def test_attempts_of_finished_jobs_go_after_their_days_and_no_others(bench: Bench) -> None:
    gone = attempted(bench, state=JobState.READY, at=LONG_AGO)
    kept = [attempted(bench, state=JobState.QUEUED, at=LONG_AGO), attempted(bench, state=JobState.READY, at=LATELY)]

    with bench.as_dispatcher() as session:
        pruned = retention.prune(session, SETTINGS)

    assert pruned["job_attempts"] >= 1
    assert bench.attempts(gone) == []
    assert [len(bench.attempts(each)) for each in kept] == [1, 1]


def test_one_call_removes_no_more_than_its_limit_and_the_next_goes_on(bench: Bench) -> None:
    with bench.as_dispatcher() as session:
        while sum(retention.prune(session, SETTINGS).values()):
            pass
    for _ in range(5):
        attempted(bench, state=JobState.READY, at=LONG_AGO)

    removed = []
    for _ in range(4):
        with bench.as_dispatcher() as session:
            removed.append(retention.prune(session, SETTINGS, limit=2)["job_attempts"])

    assert removed == [2, 2, 1, 0]


def test_messages_letters_and_workers_go_when_nobody_needs_them(bench: Bench) -> None:
    old, new, waiting = bench.submit(), bench.submit(), bench.submit()
    with bench.session() as session:
        for step_id, at in ((old, YESTERDAY), (new, LATELY)):
            session.execute(update(OutboxMessage).where(OutboxMessage.step_id == step_id).values(published_at=at))
        letters = {
            name: DeadLetter(origin="job", reason="test", signature="0" * 16, created_at=LONG_AGO, resolved_at=at)
            for name, at in (("open", None), ("closed long ago", LONG_AGO), ("closed lately", LATELY))
        }
        session.add_all(letters.values())
        workers = {
            name: Worker(id=new_id(), name=name, concurrency=1, heartbeat_at=at)
            for name, at in (("gone", YESTERDAY), ("here", LATELY))
        }
        session.add_all(workers.values())
        session.flush()
        letter_ids = {name: letter.id for name, letter in letters.items()}
        worker_ids = {name: worker.id for name, worker in workers.items()}

    with bench.as_dispatcher() as session:
        retention.prune(session, SETTINGS)

    assert [len(bench.messages(step_id)) for step_id in (old, new, waiting)] == [0, 1, 1]
    assert {name: count(bench, DeadLetter, DeadLetter.id == key) for name, key in letter_ids.items()} == {
        "open": 1,
        "closed long ago": 0,
        "closed lately": 1,
    }
    assert {name: count(bench, Worker, Worker.id == key) for name, key in worker_ids.items()} == {"gone": 0, "here": 1}


def checkups(bench: Bench) -> list[Job]:
    with bench.session() as session:
        jobs = list(session.scalars(select(Job).where(Job.kind == maintenance.DOCTOR).order_by(Job.id)))
        session.expunge_all()
        return jobs


@pytest.fixture
def old(stores: Stores) -> Bench:
    """The jobs of a tenant that was there before the last sweep was due."""
    with unscoped_session(stores.unscoped) as session:
        tenant = Tenant(name=f"Old {uuid4().hex}", created_at=YESTERDAY)
        session.add(tenant)
        session.flush()
        return Bench(stores, tenant.id, f"test.{uuid4().hex}")


def sweep(bench: Bench, settings: JobSettings = SETTINGS) -> None:
    """As often as it takes to come to this tenant."""
    while True:
        with bench.as_dispatcher() as session:
            if retention.submit_due_sweeps(session, settings) == 0:
                return


def test_a_tenant_that_nobody_looked_at_for_a_day_is_swept_once(old: Bench) -> None:
    sweep(old)
    sweep(old)

    (job,) = checkups(old)
    assert (job.options, job.state) == ({"repair": True}, JobState.QUEUED)
    with old.session() as session:
        (step,) = session.scalars(select(JobStep).where(JobStep.job_id == job.id))
        assert (step.step, step.queue) == ("doctor", lanes.MAINTENANCE)
        step_id = step.id
    assert len(old.messages(step_id)) == 1


def test_a_new_tenant_is_not_swept(bench: Bench) -> None:
    sweep(bench)

    assert checkups(bench) == []


def test_a_new_sweep_follows_when_the_last_one_is_a_day_old(old: Bench) -> None:
    sweep(old)
    with old.session() as session:
        session.execute(update(Job).values(created_at=YESTERDAY, state=JobState.READY))

    sweep(old)

    assert len(checkups(old)) == 2


def test_zero_hours_mean_never(old: Bench) -> None:
    sweep(old, JobSettings(doctor_hours=0))

    assert checkups(old) == []


def test_drift_is_the_sum_over_tenants_of_what_each_was_last_found_to_have(bench: Bench) -> None:
    with bench.as_dispatcher() as session:
        before = retention.drift(session)
    for number, at in ((7, LONG_AGO), (3, LATELY)):
        with bench.session() as session:
            result = {"qdrant": {"orphaned": number, "missing": 0}, "s3": {}, "postgres": {}, "samples": {}}
            session.add(Job(kind="doctor", state=JobState.READY, result=result, finished_at=at))
    with bench.session() as session:
        session.add(Job(kind="doctor", state=JobState.FAILED, finished_at=NOW))

    with bench.as_dispatcher() as session:
        after = retention.drift(session)

    assert after["qdrant", "orphaned"] - before.get(("qdrant", "orphaned"), 0) == 3
    assert after["qdrant", "missing"] == before.get(("qdrant", "missing"), 0)
