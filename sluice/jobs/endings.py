"""How a job ends, whoever ends it: a worker, the sweeper, a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from sluice.errors import SluiceError
from sluice.jobs import dead_letters, outbox
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import LIVE, JobState, sources_of


def hold(session: Session, job_id: UUID) -> Job | None:
    """Lock the job's steps, oldest first, and then the job, as it is now; None when there is none.

    Everybody who touches more than one step of a job takes the locks in this order, or two of them could wait for each
    other.
    """
    session.scalars(select(JobStep.id).where(JobStep.job_id == job_id).order_by(JobStep.id).with_for_update()).all()
    return session.scalars(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


def end(session: Session, job_id: UUID, state: JobState, **facts: Any) -> None:
    """End a job that is held, unless it has ended. Steps that wait are canceled; those that run find out themselves."""
    cancel_waiting(session, [job_id])
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.in_(sources_of(state)))
        .values(state=state, finished_at=func.now(), revision=Job.revision + 1, updated_at=func.now(), **facts)
        .execution_options(synchronize_session=False)
    )
    outbox.tell_of_room(session)


def cancel_waiting(session: Session, job_ids: Sequence[UUID]) -> None:
    """Cancel the steps of these jobs that no worker has, and take back their messages that nobody has published."""
    canceled = session.scalars(
        update(JobStep)
        .where(JobStep.job_id.in_(job_ids), JobStep.state == JobState.QUEUED)
        .values(state=JobState.CANCELED)
        .returning(JobStep.id)
        .execution_options(synchronize_session=False)
    ).all()
    outbox.withdraw(session, canceled)


def give_up(session: Session, step: JobStep, job: Job, error: SluiceError) -> None:
    """Fail the step and its job, which is held, and leave a dead letter: one a job, of the part that is first."""
    step.state = JobState.FAILED
    step.lease_until = None
    step.error_code = error.code
    if job.state in LIVE:
        dead_letters.give_up(session, job, step, error)
    session.flush()
    end(session, job.id, JobState.FAILED, error_code=error.code, error_detail=error.detail)
