"""What was lost on the way: dead workers, messages that the broker lost or gave up. Sees all tenants."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import and_, exists, func, or_, select, update
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


def lead_sweeping(session: Session) -> bool:
    """Whether this process is the sweeper, for the length of this transaction."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEPER_LOCK))))


def requeue_expired(session: Session) -> int:
    """Queue the steps whose worker fell silent; how many. A step without attempts left fails as `worker_lost`."""
    silent = and_(JobStep.state == JobState.RUNNING, JobStep.lease_until < func.now())
    found = session.execute(
        select(JobStep.job_id, JobStep.id).where(silent).order_by(JobStep.job_id, JobStep.id).limit(_BATCH)
    ).all()
    requeued = 0
    for job_id, step_id in found:
        job = endings.hold(session, job_id)
        # Looked at again under the lock: its worker may have spoken meanwhile.
        step = session.scalars(select(JobStep).where(JobStep.id == step_id, silent)).one_or_none()
        if job is None or step is None:
            continue
        requeued += 1
        _put_back(session, job, step)
    return requeued


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


def requeue_undelivered(session: Session, settings: JobSettings) -> int:
    """Promise again the messages that were published but never claimed: the broker may have lost them; how many."""
    unpublished = aliased(OutboxMessage)
    lost = session.scalars(
        select(JobStep)
        .where(
            JobStep.state == JobState.QUEUED,
            or_(
                JobStep.dispatched_at < func.now() - timedelta(seconds=settings.dispatch_timeout_seconds),
                # Due for long and with no message on its way, whatever the reason.
                and_(
                    JobStep.dispatched_at.is_(None),
                    JobStep.run_after < func.now() - timedelta(seconds=settings.dispatch_timeout_seconds),
                ),
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
        outbox.promise(session, step)
    return len(lost)


def refuse_delivery(session: Session, step_id: UUID, error: SluiceError, settings: JobSettings) -> bool:
    """Count a message that the broker gave up as an attempt of its step, which waits for another try or fails.

    Whether it concerned a step that waits: one that runs or has ended needs no message.
    """
    job_id = session.scalar(select(JobStep.job_id).where(JobStep.id == step_id))
    job = endings.hold(session, job_id) if job_id else None
    step = session.scalars(select(JobStep).where(JobStep.id == step_id, JobStep.state == JobState.QUEUED)).one_or_none()
    if job is None or step is None or job.state not in LIVE:
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


def _has_running(session: Session, job_id: UUID) -> bool:
    return bool(session.scalar(select(exists().where(JobStep.job_id == job_id, JobStep.state == JobState.RUNNING))))


def _wait_if_idle(session: Session, job: Job) -> None:
    session.flush()
    job.revision += 1
    job.updated_at = func.now()
    if not _has_running(session, job.id):
        job.state = JobState.QUEUED
