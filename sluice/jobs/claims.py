"""The worker's side of a job: claim a step, keep it, and write only while it is still ours.

Every write carries `id`, `attempt` and `running`. A worker that was away too long (paused, cut off, presumed dead)
finds no row, learns that it has lost the step, and writes nothing: its attempt number is its fencing token (Kleppmann,
"How to do distributed locking", 2016).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import ColumnElement, CursorResult, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session

from sluice.db.one_trip import in_one_trip
from sluice.db.session import Sessions
from sluice.errors import SluiceError
from sluice.ids import new_id
from sluice.jobs import endings, outbox
from sluice.jobs.models import Job, JobAttempt, JobStep
from sluice.jobs.state import LIVE, JobState
from sluice.jobs.statements import CLAIM, FINISH
from sluice.settings import JobSettings

fence_rejections = Counter("sluice_fence_rejections", "Writes refused because the step belonged to another attempt")


class OwnershipLost(SluiceError):
    """The step belongs to a later attempt, or was ended from outside."""

    code = "ownership_lost"


class Canceled(SluiceError):
    """Somebody asked for this job to stop."""

    code = "canceled"


@dataclass(frozen=True)
class Claim:
    """One attempt's right to run one step."""

    tenant_id: UUID
    job_id: UUID
    step_id: UUID
    step: str
    part: int
    attempt: int
    worker: str
    document_id: UUID | None
    version_id: UUID | None
    checkpoint: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def claim(
    session: Session,
    step_id: UUID,
    *,
    worker: str,
    settings: JobSettings,
    holder: int | None = None,
    gone: int | None = None,
) -> Claim | None:
    """Take the step, or return None: another worker has it, it is done, not due yet, or out of attempts.

    `holder` is the lock that this process holds while it lives; `gone` one whose process is known to be dead.
    """
    facts = _claiming(step_id, worker, settings, holder=holder, gone=gone)
    return _claimed(_execute(session, CLAIM, facts).one_or_none(), worker)


def claim_at_once(
    sessions: Sessions, tenant_id: UUID, step_id: UUID, *, worker: str, settings: JobSettings, holder: int | None
) -> Claim | None:
    """As `claim`, in a transaction of its own that takes one round trip: what every message begins with."""
    facts = _claiming(step_id, worker, settings, holder=holder)
    return _claimed(in_one_trip(sessions, tenant_id, CLAIM, facts), worker)


def _claiming(
    step_id: UUID, worker: str, settings: JobSettings, *, holder: int | None, gone: int | None = None
) -> dict[str, Any]:
    return {
        "step_id": step_id,
        "worker": worker,
        "holder": holder,
        "gone": gone,
        "lease": settings.lease_seconds,
        "attempt_id": new_id(),
    }


def _claimed(step: Any, worker: str) -> Claim | None:
    if step is None:
        return None
    return Claim(
        tenant_id=step.tenant_id,
        job_id=step.job_id,
        step_id=step.id,
        step=step.step,
        part=step.part,
        attempt=step.attempt,
        worker=worker,
        document_id=step.document_id,
        version_id=step.version_id,
        checkpoint=step.checkpoint,
        options=step.options,
    )


def is_running(session: Session, step_id: UUID) -> bool:
    """Whether some attempt has the step."""
    return session.scalar(select(JobStep.state).where(JobStep.id == step_id)) == JobState.RUNNING


def heartbeat(session: Session, claim: Claim, settings: JobSettings) -> bool:
    """Extend the lease; whether somebody asked for the job to stop. `OwnershipLost` when it is no longer ours."""
    _write(session, claim, lease_until=func.now() + timedelta(seconds=settings.lease_seconds))
    return cancel_requested(session, claim)


def cancel_requested(session: Session, claim: Claim) -> bool:
    """Whether the job was asked to stop, or has ended for another reason."""
    job = session.execute(select(Job.state, Job.cancel_requested_at).where(Job.id == claim.job_id)).one()
    return job.cancel_requested_at is not None or job.state not in LIVE


def checkpoint(session: Session, claim: Claim, **facts: Any) -> None:
    """Remember what need not be done again. Locks the step, so that the rest of the transaction is ours too."""
    claim.checkpoint.update(facts)
    _write(session, claim, checkpoint=claim.checkpoint)
    _require_wanted(session, claim)


def prove(session: Session, claim: Claim) -> None:
    """Lock the step, so that the rest of the transaction is ours; `OwnershipLost` when it is not."""
    _write(session, claim)


def progress(session: Session, claim: Claim, stage: str, done: int, total: int | None) -> None:
    """Say how far the job has come: `done` of `total`, or of an unknown number."""
    _write(session, claim)
    _require_wanted(session, claim)
    # A stage that begins again, after a crash, is estimated from its new beginning.
    begins = or_(Job.step.is_distinct_from(stage), Job.stage_started_at.is_(None), Job.done > done)
    began = case((begins, func.now()), else_=Job.stage_started_at)
    _change_job(session, claim, step=stage, done=done, total=total, stage_started_at=began)


def count_done(session: Session, claim: Claim, done: int) -> None:
    """Say how far this step has come; the job's own count is the sum over its parts, whichever were run twice."""
    checkpoint(session, claim, done=done)
    of_all = select(func.sum(JobStep.checkpoint["done"].as_integer())).where(
        JobStep.job_id == claim.job_id, JobStep.step == claim.step
    )
    # What was put into the index twice, because it was lost there, counts once.
    _change_job(session, claim, done=func.least(of_all.scalar_subquery(), Job.total))


def fan_out(session: Session, claim: Claim, parts: list[JobStep], *, stage: str, total: int) -> None:
    """End this step and hand its work, `total` pieces of it, to `parts`, in one transaction with their messages."""
    _end_well(session, claim)
    session.add_all(parts)
    session.flush()
    for part in parts:
        outbox.promise(session, part)
    _change_job(
        session,
        claim,
        parts_total=len(parts),
        parts_done=0,
        step=stage,
        done=0,
        total=total,
        stage_started_at=func.now(),
    )


def finish_part(session: Session, claim: Claim) -> bool:
    """End this part; whether it was the last one, so that the caller adds what follows in the same transaction."""
    _end_well(session, claim)
    job = session.execute(
        update(Job)
        .where(Job.id == claim.job_id)
        .values(parts_done=Job.parts_done + 1, **_changed())
        .returning(Job.parts_done, Job.parts_total)
    ).one()
    outbox.tell_of_room(session)
    return bool(job.parts_done == job.parts_total)


def hand_on(session: Session, claim: Claim) -> None:
    """End this step, which is no part of many: the caller adds the one that goes on with its work."""
    _end_well(session, claim)
    _change_job(session, claim)
    outbox.tell_of_room(session)


def finish(session: Session, claim: Claim, result: dict[str, Any] | None = None) -> None:
    """End the step and its job: `ready`, with what came of it, unless somebody asked for it to stop before."""
    _finished(_execute(session, FINISH, _finishing(claim, result)).one(), claim)


def finish_at_once(sessions: Sessions, claim: Claim, result: dict[str, Any] | None = None) -> None:
    """As `finish`, in a transaction of its own that takes one round trip."""
    _finished(in_one_trip(sessions, claim.tenant_id, FINISH, _finishing(claim, result)), claim)


def _finishing(claim: Claim, result: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "step_id": claim.step_id,
        "attempt": claim.attempt,
        "result": None if result is None else json.dumps(result),
        "channel": outbox.ROOM,
        "tell": outbox.room_is_news(),
    }


def _end_well(session: Session, claim: Claim) -> None:
    _write(session, claim, state=JobState.READY, lease_until=None)
    _require_wanted(session, claim)
    _end_attempt(session, claim, "ready")


def _finished(done: Any, claim: Claim) -> None:
    if not done.steps:
        _refuse(claim)
    if not done.jobs:
        raise Canceled


def retry_later(
    session: Session, claim: Claim, error: SluiceError, settings: JobSettings, *, blameless: bool
) -> datetime | None:
    """Queue the step again after a delay that doubles; when, or None when its attempts were used up and it failed.

    `blameless`: a part of the platform was away. That costs the document none of its attempts, however long it lasts.
    """
    endings.hold(session, claim.job_id)
    _write(session, claim)
    if cancel_requested(session, claim):
        stop_canceled(session, claim)
        return None
    if not blameless and claim.attempt >= (session.scalar(select(JobStep.max_attempts).where(_ours(claim))) or 0):
        fail(session, claim, error)
        return None
    delay = backoff(claim.attempt, settings)
    facts: dict[str, Any] = {"max_attempts": JobStep.max_attempts + 1} if blameless else {}
    _write(
        session,
        claim,
        state=JobState.QUEUED,
        run_after=func.now() + timedelta(seconds=delay),
        lease_until=None,
        dispatched_at=None,
        error_code=error.code,
        **facts,
    )
    _end_attempt(session, claim, "retry", error)
    step = session.get_one(JobStep, claim.step_id, populate_existing=True)
    outbox.promise(session, step, available_at=step.run_after)
    still_running = exists().where(JobStep.job_id == claim.job_id, JobStep.state == JobState.RUNNING)
    session.execute(
        update(Job)
        .where(Job.id == claim.job_id, Job.state == JobState.RUNNING, ~still_running)
        .values(state=JobState.QUEUED)
        .execution_options(synchronize_session=False)
    )
    _change_job(session, claim, error_code=error.code, error_detail=error.detail)
    return step.run_after


def fail(session: Session, claim: Claim, error: SluiceError) -> None:
    """Give the step and its job up, with a code and a sentence that a person can act on, and a dead letter."""
    job = endings.hold(session, claim.job_id)
    _write(session, claim)
    step = session.get_one(JobStep, claim.step_id, populate_existing=True)
    assert job is not None  # noqa: S101 - a step that is ours has a job
    endings.give_up(session, step, job, error)
    _end_attempt(session, claim, "failed", error)


def stop_canceled(session: Session, claim: Claim) -> None:
    """End the step because somebody asked for it; put it back when somebody has asked for another try meanwhile."""
    job = endings.hold(session, claim.job_id)
    _write(session, claim, state=JobState.CANCELED, lease_until=None)
    _end_attempt(session, claim, "canceled")
    step = session.get_one(JobStep, claim.step_id, populate_existing=True)
    if job is not None and not cancel_requested(session, claim):
        step.state = JobState.QUEUED
        # Whoever tried the job again gave attempts to what had ended by then, and not to this step.
        step.max_attempts = max(step.max_attempts, step.attempt + 1)
        step.dispatched_at = None
        outbox.promise(session, step)
    elif not session.scalar(select(exists().where(JobStep.job_id == claim.job_id, JobStep.state == JobState.RUNNING))):
        endings.end(session, claim.job_id, JobState.CANCELED)


def backoff(attempt: int, settings: JobSettings) -> float:
    """Seconds before the next attempt: exponential, with jitter (AWS, "Exponential Backoff And Jitter")."""
    ceiling = min(settings.backoff_seconds * 2.0 ** max(attempt - 1, 0), settings.backoff_max_seconds)
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


def _execute(session: Session, statement: str, values: dict[str, Any]) -> CursorResult[Any]:
    """Run a statement as the driver takes it; the ORM would add a third to what it costs."""
    return session.connection().exec_driver_sql(statement, values)


def _ours(claim: Claim) -> ColumnElement[bool]:
    return and_(JobStep.id == claim.step_id, JobStep.attempt == claim.attempt, JobStep.state == JobState.RUNNING)


def _write(session: Session, claim: Claim, **values: Any) -> None:
    result = session.execute(
        update(JobStep)
        .where(_ours(claim))
        # An update needs a value; setting the attempt to itself still locks the row and proves that it is ours.
        .values(**(values or {"attempt": JobStep.attempt}))
        .returning(JobStep.id)
        .execution_options(synchronize_session=False)
    )
    if result.one_or_none() is None:
        _refuse(claim)


def _refuse(claim: Claim) -> None:
    fence_rejections.inc()
    raise OwnershipLost(f"Attempt {claim.attempt} no longer owns step {claim.step_id}.")


def _require_wanted(session: Session, claim: Claim) -> None:
    """Raise `Canceled` when the job was asked to stop or has ended; holds the job until the transaction ends."""
    _hold_job(session, claim)
    if cancel_requested(session, claim):
        raise Canceled


def _hold_job(session: Session, claim: Claim) -> None:
    """Lock the job, so that of two parts that end together the second sees the first."""
    session.execute(select(Job.id).where(Job.id == claim.job_id).with_for_update())


def _end_attempt(session: Session, claim: Claim, outcome: str, error: SluiceError | None = None) -> None:
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.step_id == claim.step_id, JobAttempt.attempt == claim.attempt)
        .values(
            ended_at=func.now(),
            outcome=outcome,
            error_code=error.code if error else None,
            error_detail=error.detail if error else None,
        )
    )


def _change_job(session: Session, claim: Claim, **values: Any) -> None:
    session.execute(
        update(Job)
        .where(Job.id == claim.job_id)
        .values(**values, **_changed())
        .execution_options(synchronize_session=False)
    )


def _changed() -> dict[str, Any]:
    return {"revision": Job.revision + 1, "updated_at": func.now()}
