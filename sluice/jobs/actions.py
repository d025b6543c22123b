"""What a person may do to jobs, to one or to many in one transaction.

Of many, those in a state that does not accept the action are left as they are; nobody is asked a question between the
look at the state and the change, because the rows are locked by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import and_, case, exists, func, select, update
from sqlalchemy.orm import Session

from sluice.jobs import dead_letters, endings, outbox, repository, selection
from sluice.jobs.dead_letters import Resolution
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import Action, JobState, check_allowed
from sluice.settings import JobSettings


def cancel(session: Session, job_id: UUID) -> Job:
    """Stop the job: at once when no worker has it, else at the worker's next look. `Conflict` when it has ended."""
    return _the_one(session, job_id, Action.CANCEL, changed=cancel_all(session, [job_id]))


def retry(session: Session, job_id: UUID, settings: JobSettings, *, by: UUID | None = None) -> Job:
    """Try a failed or canceled job again, from its last checkpoint; `Conflict` in any other state.

    Attempts go on counting. Its dead letters are closed as dealt with, by the user `by`.
    """
    return _the_one(session, job_id, Action.RETRY, changed=retry_all(session, [job_id], settings, by=by))


def cancel_all(session: Session, job_ids: Sequence[UUID]) -> Sequence[UUID]:
    """Stop these jobs, as `cancel` stops one; the ids of those that could be stopped."""
    held = _hold(session, job_ids, Action.CANCEL)
    if held:
        endings.cancel_waiting(session, held)
        at_work = exists().where(JobStep.job_id == Job.id, JobStep.state == JobState.RUNNING)
        _change_jobs(
            session,
            held,
            cancel_requested_at=func.now(),
            state=case((at_work, Job.state), else_=JobState.CANCELED),
            finished_at=case((at_work, None), else_=func.now()),
        )
        outbox.tell_of_room(session)
    return held


def retry_all(
    session: Session,
    job_ids: Sequence[UUID],
    settings: JobSettings,
    *,
    by: UUID | None,
    how: Resolution = Resolution.RETRIED,
) -> Sequence[UUID]:
    """Try these jobs again, as `retry` tries one; the ids of those that could be tried.

    Their dead letters are closed by the user `by`, as dealt with in the way `how`.
    """
    held = _hold(session, job_ids, Action.RETRY)
    if not held:
        return held
    dead_letters.resolve_for_jobs(session, held, by, how)
    ended = {"cancel_requested_at": None, "finished_at": None, "error_code": None, "error_detail": None}
    # The time in between is none that the work took; a stage that goes on has no pace to be estimated by.
    _change_jobs(session, held, state=JobState.QUEUED, stage_started_at=None, **ended)
    steps = session.scalars(
        update(JobStep)
        .where(JobStep.job_id.in_(held), JobStep.state.in_([JobState.FAILED, JobState.CANCELED]))
        .values(
            state=JobState.QUEUED,
            max_attempts=JobStep.attempt + settings.max_attempts,
            run_after=func.now(),
            dispatched_at=None,
            error_code=None,
        )
        .returning(JobStep)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    outbox.promise_all(session, steps)
    return held


def _the_one(session: Session, job_id: UUID, action: Action, *, changed: Sequence[UUID]) -> Job:
    """The job, which is locked; `Conflict` when the action did not change it because of its state."""
    job = repository.get(session, job_id)
    if not changed:
        check_allowed(action, job.state)
    return job


def _hold(session: Session, job_ids: Sequence[UUID], action: Action) -> Sequence[UUID]:
    """Lock the steps and then the jobs, each in the order of their ids; the ids of those that accept the action.

    The order is that of `endings.hold`, so that neither waits for the other for ever.
    """
    steps = select(JobStep.id).where(JobStep.job_id.in_(job_ids)).order_by(JobStep.id).with_for_update()
    session.execute(steps).all()
    rows = session.execute(
        select(Job.id, and_(*selection.accepting(action)).label("accepts"))
        .where(Job.id.in_(job_ids))
        .order_by(Job.id)
        .with_for_update()
    ).all()
    return [row.id for row in rows if row.accepts]


def _change_jobs(session: Session, job_ids: Sequence[UUID], **values: object) -> None:
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids))
        .values(revision=Job.revision + 1, updated_at=func.now(), **values)
        .execution_options(synchronize_session=False)
    )
