"""The people's side of a job: submit it, and look at it. What they may do to it is in `actions`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from sluice.errors import NotFound
from sluice.jobs import outbox
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import JobState

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
