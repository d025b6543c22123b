"""The dispatcher's side of a job: what to publish next, and what was lost on the way. Sees all tenants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Exists, Select, and_, exists, func, select, text, update
from sqlalchemy.orm import Session, aliased

from sluice.jobs import outbox
from sluice.jobs.models import Job, JobAttempt, JobStep, OutboxMessage
from sluice.jobs.state import LIVE, JobState
from sluice.settings import JobSettings

# Any number that no other use of advisory locks in this database has.
_SWEEPER_LOCK = 7_201_001


def due_messages(session: Session, queue: str, settings: JobSettings) -> Sequence[OutboxMessage]:
    """Lock the messages to publish now: one of each tenant in turn, as many as the queue has room for.

    The queue stays shallow (about four messages a worker), so that a tenant with 500 documents cannot put them all in
    front of another tenant's single one.
    """
    room = settings.in_flight - _in_flight(session, queue)
    if room <= 0:
        return []
    waiting = func.row_number().over(
        partition_by=OutboxMessage.tenant_id, order_by=(OutboxMessage.available_at, OutboxMessage.id)
    )
    # What a tenant has in the queue counts as turns it has had, or the oldest backlog would take every free place.
    already = (
        select(JobStep.tenant_id, func.count().label("number"))
        .where(*_dispatched(queue))
        .group_by(JobStep.tenant_id)
        .subquery()
    )
    turn = waiting + func.coalesce(already.c.number, 0)
    ranked = (
        select(OutboxMessage.id, turn.label("turn"))
        .outerjoin(already, already.c.tenant_id == OutboxMessage.tenant_id)
        .where(
            OutboxMessage.queue == queue,
            OutboxMessage.published_at.is_(None),
            OutboxMessage.available_at <= func.now(),
        )
        .subquery()
    )
    chosen = select(ranked.c.id).order_by(ranked.c.turn, ranked.c.id).limit(room)
    return session.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.id.in_(chosen), OutboxMessage.published_at.is_(None))
        .order_by(OutboxMessage.id)
        .with_for_update(skip_locked=True)
    ).all()


def mark_published(session: Session, messages: Sequence[OutboxMessage]) -> None:
    """Record that the broker has confirmed these messages."""
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.id.in_([message.id for message in messages]))
        .values(published_at=func.now())
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(JobStep)
        .where(JobStep.id.in_([message.step_id for message in messages]), JobStep.state.in_(LIVE))
        .values(dispatched_at=func.now())
        .execution_options(synchronize_session=False)
    )


def lead_sweeping(session: Session) -> bool:
    """Whether this process is the sweeper, for the length of this transaction."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEPER_LOCK))))


def requeue_expired(session: Session) -> int:
    """Queue the steps whose worker fell silent; how many. A step without attempts left fails as `worker_lost`."""
    expired = session.scalars(
        select(JobStep)
        .where(JobStep.state == JobState.RUNNING, JobStep.lease_until < func.now())
        .order_by(JobStep.id)
        .limit(500)
        .with_for_update(skip_locked=True)
    ).all()
    for step in expired:
        # All steps before the job, the order in which everybody else locks them.
        session.scalars(_steps_of(step.job_id).with_for_update()).all()
        job = session.get_one(Job, step.job_id, with_for_update=True, populate_existing=True)
        session.execute(
            update(JobAttempt)
            .where(JobAttempt.step_id == step.id, JobAttempt.ended_at.is_(None))
            .values(ended_at=func.now(), outcome="lost", error_code="worker_lost")
        )
        step.lease_until = None
        job.revision += 1
        job.updated_at = func.now()
        if job.cancel_requested_at is not None or job.state not in LIVE:
            _end(session, job, step, JobState.CANCELED)
        elif step.attempt >= step.max_attempts:
            step.error_code = job.error_code = "worker_lost"
            job.error_detail = (
                f"The worker died {step.attempt} times while it ran this step. The file may need more memory than a "
                "worker has, or crash a parser: look at the worker's log, then retry."
            )
            _end(session, job, step, JobState.FAILED)
        else:
            step.state = JobState.QUEUED
            step.dispatched_at = None
            outbox.promise(session, step)
            session.flush()
            if not session.scalar(select(_has_running(job))):
                job.state = JobState.QUEUED
    return len(expired)


def requeue_undelivered(session: Session, settings: JobSettings) -> int:
    """Promise again the messages that were published but never claimed: the broker may have lost them; how many."""
    unpublished = aliased(OutboxMessage)
    lost = session.scalars(
        select(JobStep)
        .where(
            JobStep.state == JobState.QUEUED,
            JobStep.dispatched_at < func.now() - timedelta(seconds=settings.dispatch_timeout_seconds),
            ~exists().where(and_(unpublished.step_id == JobStep.id, unpublished.published_at.is_(None))),
            exists().where(Job.id == JobStep.job_id, Job.state.in_(LIVE)),
        )
        .limit(500)
        .with_for_update(skip_locked=True)
    ).all()
    for step in lost:
        step.dispatched_at = None
        outbox.promise(session, step)
    return len(lost)


def count_states(session: Session) -> dict[JobState, int]:
    """How many jobs are in each state, over all tenants."""
    counted = session.execute(select(Job.state, func.count()).group_by(Job.state)).all()
    found = {JobState(state): number for state, number in counted}
    return {state: found.get(state, 0) for state in JobState}


def oldest_heartbeat(session: Session, settings: JobSettings) -> float | None:
    """Unix time of the longest silence among running steps, or None when nothing runs."""
    oldest = session.scalar(select(func.min(JobStep.lease_until)).where(JobStep.state == JobState.RUNNING))
    return oldest.timestamp() - settings.lease_seconds if oldest else None


def prune(session: Session) -> int:
    """Drop messages published more than a day ago; how many."""
    result = session.execute(text("DELETE FROM outbox WHERE published_at < now() - interval '1 day' RETURNING id"))
    return len(result.all())


def _has_running(job: Job) -> Exists:
    return exists().where(JobStep.job_id == job.id, JobStep.state == JobState.RUNNING)


def _end(session: Session, job: Job, step: JobStep, state: JobState) -> None:
    step.state = state
    if job.state in LIVE:
        job.state = state
        job.finished_at = func.now()
    session.execute(
        update(JobStep)
        .where(JobStep.job_id == job.id, JobStep.state == JobState.QUEUED)
        .values(state=JobState.CANCELED)
        .execution_options(synchronize_session=False)
    )


def _steps_of(job_id: UUID) -> Select[UUID]:
    return select(JobStep.id).where(JobStep.job_id == job_id).order_by(JobStep.id)


def _in_flight(session: Session, queue: str) -> int:
    return session.scalar(select(func.count()).select_from(JobStep).where(*_dispatched(queue))) or 0


def _dispatched(queue: str) -> tuple[ColumnElement[bool], ...]:
    """Steps whose message is with the broker or with a worker; the sweeper forgets messages that were lost."""
    return JobStep.queue == queue, JobStep.state.in_(LIVE), JobStep.dispatched_at.is_not(None)
