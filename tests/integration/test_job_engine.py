"""The job engine on real PostgreSQL: who may run a step, what a lost worker can still do, and how a job ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sluice.errors import Invalid, SluiceError, TemporarilyUnavailable
from sluice.identity.roles import Role
from sluice.jobs import claims, endings, repository
from sluice.jobs.claims import Claim, OwnershipLost
from sluice.jobs.models import Job, JobAttempt, JobStep, OutboxMessage
from sluice.jobs.state import JobState
from tests.e2e.running import Join, Stores
from tests.integration.job_bench import SETTINGS, Bench, fanned_out

pytestmark = pytest.mark.usefixtures("no_dispatcher")

BOOM: Final = SluiceError("The parser tripped.", code="boom")
AWAY: Final = TemporarilyUnavailable("EMB does not answer.", code="embedder_unavailable")


def test_a_step_is_claimed_by_one_of_many_workers_that_want_it_at_once(bench: Bench) -> None:
    step_id = bench.submit()

    with ThreadPoolExecutor(4) as crowd:
        won = list(crowd.map(lambda n: bench.claim(step_id, f"worker-{n}"), range(12)))

    (claim,) = [claim for claim in won if claim is not None]
    step = bench.read(step_id)
    assert (step.state, step.attempt, step.worker) == (JobState.RUNNING, 1, claim.worker)
    assert bench.job_of(step_id).state is JobState.RUNNING
    assert bench.attempts(step_id) == [(1, claim.worker, None)]


def test_a_message_delivered_twice_finds_nothing_to_claim(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)

    assert bench.claim(step_id, "second") is None
    with bench.session() as session:
        claims.finish(session, claim)
    assert bench.claim(step_id, "second") is None
    assert bench.read(step_id).attempt == 1


def test_another_tenant_s_session_claims_nothing(bench: Bench, stores: Stores, join: Join) -> None:
    step_id = bench.submit()
    other = Bench(stores, join(f"Bench {uuid4().hex}", Role.ADMIN).tenant_id, bench.queue)

    assert other.claim(step_id) is None
    assert bench.claim(step_id) is not None


def test_a_step_whose_lease_ran_out_belongs_to_the_next_attempt(bench: Bench) -> None:
    step_id = bench.submit()
    bench.claimed(step_id, "first")
    bench.expire(step_id)

    second = bench.claimed(step_id, "second")

    assert second.attempt == 2
    assert bench.attempts(step_id) == [(1, "first", "lost"), (2, "second", None)]


def test_a_heartbeat_keeps_the_step(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)
    bench.expire(step_id)

    with bench.session() as session:
        assert claims.heartbeat(session, claim, SETTINGS) is False

    lease = bench.read(step_id).lease_until
    assert lease is not None
    assert lease > datetime.now(UTC)
    assert bench.claim(step_id, "second") is None


WRITES: Final[dict[str, Callable[[Session, Claim], object]]] = {
    "heartbeat": lambda session, claim: claims.heartbeat(session, claim, SETTINGS),
    "checkpoint": lambda session, claim: claims.checkpoint(session, claim, chunks=99),
    "prove": claims.prove,
    "progress": lambda session, claim: claims.progress(session, claim, "embed", 99, 99),
    "count_done": lambda session, claim: claims.count_done(session, claim, 99),
    "fan_out": lambda session, claim: claims.fan_out(session, claim, [], stage="embed", total=99),
    "finish_part": claims.finish_part,
    "finish": claims.finish,
    "retry_later": lambda session, claim: claims.retry_later(session, claim, BOOM, SETTINGS, blameless=True),
    "retry_later, blamed": lambda session, claim: claims.retry_later(session, claim, BOOM, SETTINGS, blameless=False),
    "fail": lambda session, claim: claims.fail(session, claim, BOOM),
    "stop_canceled": claims.stop_canceled,
}


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_that_came_back_too_late_writes_nothing(bench: Bench, write: str) -> None:
    step_id = bench.submit()
    zombie = bench.claimed(step_id, "zombie")
    bench.expire(step_id)
    owner = bench.claimed(step_id, "owner")
    before = everything(bench, step_id)
    rejected = claims.fence_rejections._value.get()

    with pytest.raises(OwnershipLost), bench.session() as session:
        WRITES[write](session, zombie)

    assert everything(bench, step_id) == before
    assert claims.fence_rejections._value.get() == rejected + 1
    with bench.session() as session:
        claims.finish(session, owner)
    assert bench.job_of(step_id).state is JobState.READY


@pytest.mark.parametrize("write", WRITES)
def test_a_worker_whose_step_was_given_back_to_the_queue_writes_nothing(bench: Bench, write: str) -> None:
    step_id = bench.submit()
    zombie = bench.claimed(step_id, "zombie")
    bench.expire(step_id)
    bench.sweep()
    before = everything(bench, step_id)

    with pytest.raises(OwnershipLost), bench.session() as session:
        WRITES[write](session, zombie)

    assert everything(bench, step_id) == before


def everything(bench: Bench, step_id: UUID) -> list[Any]:
    """Every column of the step, its job, attempts and messages."""
    job = select(JobStep.job_id).where(JobStep.id == step_id).scalar_subquery()
    wanted = ((JobStep, JobStep.id), (JobAttempt, JobAttempt.step_id), (OutboxMessage, OutboxMessage.step_id))
    with bench.session() as session:
        of_step = [session.execute(select(*kind.__table__.c).where(id_ == step_id)).all() for kind, id_ in wanted]
        return [*of_step, session.execute(select(*Job.__table__.c).where(Job.id == job)).all()]


def test_the_rest_of_a_zombie_s_transaction_is_rolled_back_with_its_write(bench: Bench) -> None:
    step_id = bench.submit()
    zombie = bench.claimed(step_id)
    bench.expire(step_id)
    bench.claimed(step_id, "owner")
    stray = uuid4()

    def add_a_job_and_finish() -> None:
        with bench.session() as session:
            session.add(Job(id=stray, kind="stray", state=JobState.QUEUED))
            session.flush()
            claims.finish(session, zombie)

    with pytest.raises(OwnershipLost):
        add_a_job_and_finish()

    with bench.session() as session:
        assert session.scalar(select(func.count()).select_from(Job).where(Job.id == stray)) == 0


def test_a_retry_is_a_row_that_nobody_can_claim_before_its_time(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)

    with bench.session() as session:
        when = claims.retry_later(session, claim, BOOM, SETTINGS, blameless=False)

    step = bench.read(step_id)
    assert when is not None
    assert 9 < (when - datetime.now(UTC)).total_seconds() <= 20
    assert (step.state, step.run_after, step.error_code) == (JobState.QUEUED, when, "boom")
    assert bench.job_of(step_id).state is JobState.QUEUED
    assert bench.job_of(step_id).error_code == "boom"
    assert bench.messages(step_id)[-1].available_at == when
    assert bench.claim(step_id) is None
    bench.set(step_id, run_after=func.now())
    assert bench.claimed(step_id).attempt == 2
    assert bench.job_of(step_id).error_code is None


def test_a_step_whose_attempts_are_used_up_fails_with_its_last_error(bench: Bench) -> None:
    step_id = bench.submit()
    for attempt in range(1, SETTINGS.max_attempts + 1):
        claim = bench.claimed(step_id)
        assert claim.attempt == attempt
        with bench.session() as session:
            when = claims.retry_later(session, claim, BOOM, SETTINGS, blameless=False)
        if when is not None:
            bench.set(step_id, run_after=func.now())

    job = bench.job_of(step_id)
    assert when is None
    assert (job.state, job.error_code, job.error_detail) == (JobState.FAILED, "boom", "The parser tripped.")
    assert job.finished_at is not None
    assert [outcome for _, _, outcome in bench.attempts(step_id)] == ["retry", "retry", "failed"]
    assert bench.claim(step_id) is None


def test_a_step_whose_last_attempt_died_is_left_to_the_sweeper(bench: Bench) -> None:
    step_id = bench.submit()
    for _ in range(SETTINGS.max_attempts):
        bench.claimed(step_id)
        bench.expire(step_id)

    assert bench.claim(step_id, "one too many") is None
    assert bench.read(step_id).attempt == SETTINGS.max_attempts


def test_an_outage_of_the_platform_costs_a_document_none_of_its_attempts(bench: Bench) -> None:
    step_id = bench.submit()
    for _ in range(2 * SETTINGS.max_attempts):
        claim = bench.claimed(step_id)
        with bench.session() as session:
            assert claims.retry_later(session, claim, AWAY, SETTINGS, blameless=True) is not None
        bench.set(step_id, run_after=func.now())

    step = bench.read(step_id)
    assert step.max_attempts - step.attempt == SETTINGS.max_attempts
    assert bench.claim(step_id) is not None


def test_the_last_of_many_parts_that_end_at_once_knows_that_it_is_the_last(bench: Bench) -> None:
    ids = fanned_out(bench, 8, total=80)
    owned = [bench.claimed(step_id, f"worker-{step_id}") for step_id in ids]

    def end(part: Claim) -> bool:
        with bench.session() as session:
            claims.count_done(session, part, 10)
            return claims.finish_part(session, part)

    with ThreadPoolExecutor(4) as crowd:
        last = list(crowd.map(end, owned))

    job = bench.job_of(ids[0])
    assert sorted(last) == [False] * 7 + [True]
    assert (job.parts_done, job.parts_total) == (8, 8)
    assert (job.done, job.total) == (80, 80)


def test_a_claim_that_waited_while_its_job_failed_does_not_bring_it_back(bench: Bench) -> None:
    first, second = fanned_out(bench, 2, total=2)
    failing = bench.claimed(first)
    bench.claimed(second)
    bench.expire(second)

    with bench.session() as session, ThreadPoolExecutor(1) as other:
        endings.hold(session, failing.job_id)
        late = other.submit(bench.claim, second, "second")
        bench.wait_until_blocked()
        claims.fail(session, failing, Invalid("no", code="no"))
        session.commit()
        taken = late.result(timeout=30)

    job = bench.job_of(second)
    assert taken is None
    assert (job.state, job.error_code) == (JobState.FAILED, "no")
    assert bench.attempts(second) == [(1, "first", None)]


def test_every_part_has_its_message_in_the_transaction_that_made_it(bench: Bench) -> None:
    claim = bench.claimed(bench.submit())
    part = bench.step(1)
    part.job_id, part.tenant_id = claim.job_id, claim.tenant_id

    with bench.session() as session:
        claims.fan_out(session, claim, [part], stage="embed", total=1)
        part_id = part.id

    (message,) = bench.messages(part_id)
    assert message.body == {"tenant_id": str(bench.tenant_id), "step_id": str(part_id), "schema_version": 1}
    assert (message.queue, message.task, message.published_at) == (bench.queue, "jobs.run_step", None)


def test_a_step_of_the_same_key_cannot_be_made_twice(bench: Bench) -> None:
    first, second = bench.step(), bench.step()
    second.idempotency_key = first.idempotency_key
    with bench.session() as session:
        repository.submit(session, Job(kind="test", state=JobState.QUEUED), first)

    with pytest.raises(IntegrityError), bench.session() as session:
        repository.submit(session, Job(kind="test", state=JobState.QUEUED), second)


def test_every_visible_change_of_a_job_has_a_revision_of_its_own(bench: Bench) -> None:
    step_id = bench.submit()
    seen = [bench.job_of(step_id).revision]
    claim = bench.claimed(step_id)
    seen.append(bench.job_of(step_id).revision)
    for done in (1, 2):
        with bench.session() as session:
            claims.progress(session, claim, "embed", done, 2)
        seen.append(bench.job_of(step_id).revision)
    with bench.session() as session:
        claims.finish(session, claim)
    seen.append(bench.job_of(step_id).revision)

    assert seen == sorted(set(seen))


def test_a_failure_told_with_characters_that_no_store_takes_is_recorded(bench: Bench) -> None:
    claim = bench.claimed(bench.submit())
    error = SluiceError("The parser says \x00 and \ud800.", code="unreadable", cause_message="\x00")

    with bench.session() as session:
        claims.fail(session, claim, error)

    assert bench.job_of(claim.step_id).error_detail == "The parser says \ufffd and \ufffd."
