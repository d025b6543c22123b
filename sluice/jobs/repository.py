"""The people's side of a job: submit it, look at it, cancel it, try it again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from sluice.errors import NotFound
from sluice.jobs import dead_letters, endings, outbox
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import Action, JobState, check_allowed
from sluice.settings import JobSettings

# Part of every idempotency key: raise it when a step's result changes, and the same work becomes new work.
PIPELINE_VERSION: Final = "1"


class JobNotFound(NotFound):
    """No such job."""

    code = "job_not_found"


def idempotency_key(*, source_id: UUID, content_hash: str, version_id: UUID, step: str, part: int) -> bytes:
    """What makes a step the same step.

    The version of the document is part of it: content that comes back after another version, or under another name,
    is new work.
    """
    parts = (source_id, content_hash, version_id, step, part, PIPELINE_VERSION)
    return hashlib.sha256("|".join(map(str, parts)).encode()).digest()


def submit(session: Session, job: Job, first: JobStep) -> Job:
    """Add the job, its first step and the step's message to this transaction."""
    session.add(job)
    session.flush()
    first.job_id = job.id
    first.tenant_id = job.tenant_id
    session.add(first)
    session.flush()
    outbox.promise(session, first)
    return job


def get(session: Session, job_id: UUID) -> Job:
    """The job, as it is now; `JobNotFound` also for another tenant's."""
    job = session.scalars(select(Job).where(Job.id == job_id).execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def steps_of(session: Session, job_id: UUID) -> Sequence[JobStep]:
    """The job's steps, in the order of their making."""
    return session.scalars(select(JobStep).where(JobStep.job_id == job_id).order_by(JobStep.id)).all()


def latest_of(session: Session, version_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """The newest job of each of these versions."""
    jobs = session.scalars(
        select(Job)
        .where(Job.version_id.in_(version_ids))
        .ext(distinct_on(Job.version_id))
        .order_by(Job.version_id, Job.created_at.desc(), Job.id.desc())
    )
    return {job.version_id: job for job in jobs if job.version_id}


def page(
    session: Session,
    *,
    state: JobState | None,
    document_id: UUID | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> Sequence[Job]:
    """Up to `limit` jobs, newest first, older than the job that `before` names."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if document_id is not None:
        query = query.where(Job.document_id == document_id)
    if before is not None:
        query = query.where(tuple_(Job.created_at, Job.id) < before)
    return session.scalars(query).all()


def cancel(session: Session, job_id: UUID) -> Job:
    """Stop the job: at once when no worker has it, else at the worker's next look."""
    job = _held(session, job_id)
    check_allowed(Action.CANCEL, job.state)
    job.cancel_requested_at = job.cancel_requested_at or _now(session)
    job.revision += 1
    session.flush()
    if session.scalar(select(exists().where(JobStep.job_id == job_id, JobStep.state == JobState.RUNNING))):
        endings.cancel_waiting(session, job_id)
    else:
        endings.end(session, job_id, JobState.CANCELED)
    session.refresh(job)
    return job


def retry(session: Session, job_id: UUID, settings: JobSettings, *, by: UUID | None = None) -> Job:
    """Try a failed or canceled job again, from its last checkpoint. Attempts go on counting.

    Its dead letters are closed as dealt with, by the user `by`.
    """
    job = _held(session, job_id)
    check_allowed(Action.RETRY, job.state)
    dead_letters.resolve_for_job(session, job_id, by)
    job.state = JobState.QUEUED
    job.cancel_requested_at = job.finished_at = job.error_code = job.error_detail = None
    job.revision += 1
    job.updated_at = func.now()
    for step in steps_of(session, job_id):
        if step.state in (JobState.FAILED, JobState.CANCELED):
            step.state = JobState.QUEUED
            step.max_attempts = step.attempt + settings.max_attempts
            step.run_after = _now(session)
            step.dispatched_at = step.error_code = None
            outbox.promise(session, step)
    return job


def _held(session: Session, job_id: UUID) -> Job:
    job = endings.hold(session, job_id)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def _now(session: Session) -> datetime:
    return session.scalars(select(func.now())).one()
