"""What a person may do to jobs, to many of them in one transaction.

A job in a state that does not accept the action is left as it is; nobody is asked a question between the look at the
state and the change, because the rows are locked by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from sluice.jobs import dead_letters, outbox, selection
from sluice.jobs.dead_letters import Resolution
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import Action, JobState
from sluice.settings import JobSettings


def cancel_all(session: Session, job_ids: Sequence[UUID]) -> Sequence[UUID]:
    """Stop these jobs, as `repository.cancel` stops one; the ids of those that could be stopped."""
    held = _hold(session, job_ids, Action.CANCEL)
    _change_jobs(session, held, cancel_requested_at=func.now())
    _change_steps(session, held, {JobState.QUEUED}, state=JobState.CANCELED)
    has_running = exists().where(JobStep.job_id == Job.id, JobStep.state == JobState.RUNNING)
    session.execute(
        update(Job)
        .where(Job.id.in_(held), ~has_running)
        .values(state=JobState.CANCELED, finished_at=func.now(), updated_at=func.now(), revision=Job.revision + 1)
        .execution_options(synchronize_session=False)
    )
    outbox.wake_dispatcher(session)
    return held


def retry_all(
    session: Session,
    job_ids: Sequence[UUID],
    settings: JobSettings,
    *,
    by: UUID | None,
    how: Resolution = Resolution.RETRIED,
) -> Sequence[UUID]:
    """Try these jobs again, as `repository.retry` tries one; the ids of those that could be tried.

    Their dead letters are closed by the user `by`, as dealt with in the way `how`.
    """
    held = _hold(session, job_ids, Action.RETRY)
    dead_letters.resolve_for_jobs(session, held, by, how)
    ended = {"cancel_requested_at": None, "finished_at": None, "error_code": None, "error_detail": None}
    _change_jobs(session, held, state=JobState.QUEUED, updated_at=func.now(), **ended)
    steps = _change_steps(
        session,
        held,
        {JobState.FAILED, JobState.CANCELED},
        state=JobState.QUEUED,
        max_attempts=JobStep.attempt + settings.max_attempts,
        run_after=func.now(),
        dispatched_at=None,
        error_code=None,
    )
    outbox.promise_all(session, steps)
    return held


def _hold(session: Session, job_ids: Sequence[UUID], action: Action) -> Sequence[UUID]:
    """Lock the steps and then the jobs, each in the order of their ids; the ids of those that accept the action.

    The order is that of `endings.hold`, so that neither waits for the other for ever.
    """
    steps = select(JobStep.id).where(JobStep.job_id.in_(job_ids)).order_by(JobStep.id).with_for_update()
    session.execute(steps).all()
    session.execute(select(Job.id).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update()).all()
    # Asked again: what was read while waiting for the locks may be older than they are.
    query = select(Job.id).where(Job.id.in_(job_ids), *selection.accepting(action)).order_by(Job.id)
    return session.scalars(query).all()


def _change_jobs(session: Session, job_ids: Sequence[UUID], **values: object) -> None:
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids))
        .values(revision=Job.revision + 1, **values)
        .execution_options(synchronize_session=False)
    )


def _change_steps(
    session: Session, job_ids: Sequence[UUID], states: set[JobState], **values: object
) -> Sequence[JobStep]:
    return session.scalars(
        update(JobStep)
        .where(JobStep.job_id.in_(job_ids), JobStep.state.in_(states))
        .values(**values)
        .returning(JobStep)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
