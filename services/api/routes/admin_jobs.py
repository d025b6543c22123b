"""`/api/admin/jobs`: what happened to jobs, and what an administrator may do to one or to many."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Final, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from services.api.all_tenants import place_in_line
from services.api.auth import CallerDep
from services.api.conditional import respond
from services.api.dependencies import ResourcesDep
from services.api.paging import Page
from services.api.routes.admin_dead_letters import DeadLetterView
from services.api.routes.bulk import BulkOutcome, Confirm
from services.api.routes.jobs import VOLATILE, JobError, JobListQuery, JobView
from services.api.sessions import SessionDep
from sluice.identity import audit
from sluice.jobs import actions, attempts, bulk, dead_letters, repository
from sluice.jobs.attempts import Attempt
from sluice.jobs.dead_letters import LetterFilter
from sluice.jobs.selection import JobFilter
from sluice.jobs.state import Action

router = APIRouter(prefix="/api/admin/jobs", tags=["Administration"])

_MOST_LETTERS: Final = 100


class AttemptView(BaseModel):
    """One run of a step by one worker."""

    step: str
    part: int
    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None = Field(description="None while it runs")
    error: JobError | None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        """What is shown of an attempt."""
        error = JobError(code=attempt.error_code, detail=attempt.error_detail) if attempt.error_code else None
        return cls.model_validate({**asdict(attempt), "error": error})


class JobHistory(JobView):
    """A job, all that was tried, and the dead letters that it left."""

    attempts: list[AttemptView] = Field(default_factory=list)
    dead_letters: list[DeadLetterView] = Field(default_factory=list)


class JobSelection(BaseModel):
    """Jobs to change, and how many they are."""

    filter: JobFilter = JobFilter()
    confirm: Confirm = None


@router.get("", operation_id="searchJobs", summary="List jobs as an administrator")
def list_jobs(session: SessionDep, query: Annotated[JobListQuery, Query()]) -> Page[JobView]:
    """The jobs that a bulk action with the same filter looks at, newest first."""
    return query.page(session)


@router.get("/{job_id}", operation_id="inspectJob", summary="Show all about a job", response_model=JobHistory)
def get(job_id: UUID, session: SessionDep, it: ResourcesDep, request: Request) -> Response:
    """A job with its steps, its attempts and its dead letters."""
    job = repository.get(session, job_id)
    view = JobHistory.of(job, repository.steps_of(session, job_id), place=place_in_line(it, job))
    view.attempts = [AttemptView.of(attempt) for attempt in attempts.of_job(session, job_id)]
    letters = dead_letters.page(session, LetterFilter(job_id=job_id), limit=_MOST_LETTERS)
    view.dead_letters = [DeadLetterView.of(letter) for letter in letters]
    return respond(request, view, volatile=VOLATILE)


@router.post("/{job_id}:cancel", operation_id="cancelJob", summary="Cancel a job")
def cancel(job_id: UUID, session: SessionDep, who: CallerDep) -> JobView:
    """Stop the job: at once while it waits, within seconds while it runs. 409 when it has ended."""
    job = actions.cancel(session, job_id)
    audit.record(session, "job.cancel", "job", job_id, by=who.user_id)
    return JobView.of(job)


@router.post("/{job_id}:retry", operation_id="retryJob", summary="Try a job again")
def retry(job_id: UUID, session: SessionDep, who: CallerDep, it: ResourcesDep) -> JobView:
    """Try a failed or canceled job again from its last checkpoint. 409 in any other state."""
    job = actions.retry(session, job_id, it.jobs, by=who.user_id)
    audit.record(session, "job.retry", "job", job_id, by=who.user_id)
    return JobView.of(job)


@router.post(":cancel", operation_id="cancelJobs", summary="Cancel many jobs")
def cancel_many(chosen: JobSelection, who: CallerDep, it: ResourcesDep) -> BulkOutcome:
    """Cancel every job that the filter fits and that can be canceled, once their number is confirmed."""
    return _change(chosen, Action.CANCEL, who, it)


@router.post(":retry", operation_id="retryJobs", summary="Try many jobs again")
def retry_many(chosen: JobSelection, who: CallerDep, it: ResourcesDep) -> BulkOutcome:
    """Try every job again that the filter fits and that failed or was canceled, once their number is confirmed."""
    return _change(chosen, Action.RETRY, who, it)


def _change(chosen: JobSelection, action: Action, who: CallerDep, it: ResourcesDep) -> BulkOutcome:
    outcome = bulk.change(
        it.sessions,
        who.tenant_id,
        chosen.filter,
        action,
        confirm=chosen.confirm,
        settings=it.jobs,
        by=who.user_id,
    )
    return BulkOutcome.of(outcome)
