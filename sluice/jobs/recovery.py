"""What was lost on the way: dead workers, messages that the broker lost or gave up. Sees all tenants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from sluice.errors import SluiceError
from sluice.ids import new_id
from sluice.jobs import endings, outbox
from sluice.jobs.claims import backoff
from sluice.jobs.models import Job, JobAttempt, JobStep, OutboxMessage
from sluice.jobs.state import LIVE, JobState
from sluice.settings import JobSettings

# Any number that no other use of advisory locks in this database has.
_SWEEPER_LOCK = 7_201_001
_BATCH = 500
_IS_SILENT: Final = and_(JobStep.state == JobState.RUNNING, JobStep.lease_until < func.now())


def lead_sweeping(session: Session) -> bool:
    """Whether this process is the sweeper, for the length of this transaction."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEPER_LOCK))))


def silent_jobs(session: Session) -> Sequence[UUID]:
    """The jobs with a step whose worker fell silent."""
    return session.scalars(select(JobStep.job_id).where(_IS_SILENT).distinct().limit(_BATCH)).all()


def requeue_expired(session: Session, job_id: UUID) -> int:
    """Queue the job's steps whose worker fell silent; how many. One without attempts left fails as `worker_lost`.

    A transaction for each job: who held two of them would take their locks in another order than somebody else.
    """
    job = endings.hold(session, job_id)
    if job is None:
        return 0
    # Looked at under the lock: the worker may have spoken meanwhile.
    steps = session.scalars(select(JobStep).where(JobStep.job_id == job_id, _IS_SILENT).order_by(JobStep.id)).all()
    for step in steps:
        _put_back(session, job, step)
    return len(steps)


def _put_back(session: Session, job: Job, step: JobStep) -> None:
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.step_id == step.id, JobAttempt.ended_at.is_(None))
        .values(ended_at=func.now(), outcome="lost", error_code="worker_lost")
    )
    step.lease_until = None
    if job.cancel_requested_at is not None or job.state not in LIVE:
        step.state = JobState.CANCELED
        session.flush()
        if not _has_running(session, job.id):
            endings.end(session, job.id, JobState.CANCELED)
    elif step.attempt >= step.max_attempts:
        detail = (
            f"The worker died {step.attempt} times while it ran this step. The file may need more memory than a "
            "worker has, or crash a parser: look at the worker's log, then retry."
        )
        endings.give_up(session, step, job, SluiceError(detail, code="worker_lost", cause_class="WorkerLost"))
    else:
        step.state = JobState.QUEUED
        step.dispatched_at = None
        outbox.promise(session, step)
        _wait_if_idle(session, job)


def overdue_queues(session: Session, settings: JobSettings) -> dict[str, int]:
    """The queues with a message that nobody has claimed for long, and how many messages each should have."""
    waiting = func.count().filter(JobStep.dispatched_at < _long_ago(settings))
    rows = session.execute(
        select(JobStep.queue, func.count().label("number"))
        .where(JobStep.state == JobState.QUEUED, JobStep.dispatched_at.is_not(None))
        .group_by(JobStep.queue)
        .having(waiting > 0)
    )
    return {row.queue: row.number for row in rows}


def requeue_undelivered(session: Session, settings: JobSettings, incomplete: Collection[str]) -> int:
    """Promise again the messages that were published to these queues, which have lost some, and not claimed for long.

    Also those of steps that are due for long and have none on its way, whatever the reason. Returns how many.
    """
    unpublished = aliased(OutboxMessage)
    lost = session.scalars(
        select(JobStep)
        .where(
            JobStep.state == JobState.QUEUED,
            or_(
                and_(JobStep.queue.in_(incomplete), JobStep.dispatched_at < _long_ago(settings)),
                and_(JobStep.dispatched_at.is_(None), JobStep.run_after < _long_ago(settings)),
            ),
            ~exists().where(and_(unpublished.step_id == JobStep.id, unpublished.published_at.is_(None))),
            exists().where(Job.id == JobStep.job_id, Job.state.in_(LIVE)),
        )
        .order_by(JobStep.id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for step in lost:
        step.dispatched_at = None
        # It keeps its place in its tenant's line.
        outbox.promise(session, step, available_at=step.run_after)
    return len(lost)


def refuse_delivery(session: Session, step_id: UUID, error: SluiceError, settings: JobSettings) -> bool:
    """Count a message that the broker gave up as an attempt of its step, which waits for another try or fails.

    Whether it concerned a step that waits: one that runs or has ended needs no message.
    """
    job, step = _waiting(session, step_id)
    if job is None or step is None:
        return False
    step.attempt += 1
    session.add(
        JobAttempt(
            id=new_id(),
            tenant_id=step.tenant_id,
            step_id=step.id,
            attempt=step.attempt,
            worker="broker",
            ended_at=func.now(),
            outcome="refused",
            error_code=error.code,
            error_detail=error.detail,
        )
    )
    if step.attempt >= step.max_attempts:
        endings.give_up(session, step, job, error)
        return True
    step.dispatched_at = None
    step.error_code = error.code
    step.run_after = func.now() + timedelta(seconds=backoff(step.attempt, settings))
    session.flush()
    session.refresh(step)
    outbox.promise(session, step, available_at=step.run_after)
    job.error_code, job.error_detail = error.code, error.detail
    job.revision += 1
    return True


def send_again(session: Session, step_id: UUID) -> bool:
    """Promise a message anew that no queue took, which is nobody's fault; whether its step still waits for one."""
    _, step = _waiting(session, step_id)
    if step is None:
        return False
    step.dispatched_at = None
    outbox.promise(session, step)
    return True


def _long_ago(settings: JobSettings) -> ColumnElement[datetime]:
    return func.now() - timedelta(seconds=settings.dispatch_timeout_seconds)


def _waiting(session: Session, step_id: UUID) -> tuple[Job, JobStep] | tuple[None, None]:
    """The step and its job, held, unless the step does not wait for a worker."""
    job_id = session.scalar(select(JobStep.job_id).where(JobStep.id == step_id))
    job = endings.hold(session, job_id) if job_id else None
    step = session.scalars(select(JobStep).where(JobStep.id == step_id, JobStep.state == JobState.QUEUED)).one_or_none()
    return (job, step) if job is not None and step is not None and job.state in LIVE else (None, None)


def _has_running(session: Session, job_id: UUID) -> bool:
    return bool(session.scalar(select(exists().where(JobStep.job_id == job_id, JobStep.state == JobState.RUNNING))))


def _wait_if_idle(session: Session, job: Job) -> None:
    session.flush()
    job.revision += 1
    job.updated_at = func.now()
    if not _has_running(session, job.id):
        job.state = JobState.QUEUED
