"""`/api/jobs`: how far the work has come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from services.api.all_tenants import place_in_line
from services.api.auth import CallerDep
from services.api.conditional import respond
from services.api.dependencies import Resources, ResourcesDep
from services.api.paging import Page, decode, page_of
from services.api.sessions import SessionDep
from services.api.streaming import numbered_stream
from sluice.db.session import tenant_session
from sluice.jobs import repository, selection
from sluice.jobs.estimate import eta_seconds
from sluice.jobs.models import Job, JobStep
from sluice.jobs.selection import JobFilter
from sluice.jobs.state import ALLOWED_ACTIONS, FINISHED, Action, JobState
from sluice.wire.events import Event, JobEnd, JobProgress

router = APIRouter(prefix="/api/jobs", tags=["Jobs"])

_LOOK_SECONDS: Final = 0.3
# The place in line costs more than the job itself, and nothing tells when it changes.
_LOOKS_AT_THE_LINE: Final = 7
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class JobError(BaseModel):
    """Why a job failed, or why its next attempt has to wait."""

    code: str
    detail: str | None


class StepView(BaseModel):
    """A piece of a job."""

    step: str
    part: int
    state: JobState
    attempt: int
    max_attempts: int
    run_after: datetime
    error_code: str | None


class JobView(BaseModel):
    """A job, how far it has come, and what may be done to it."""

    id: UUID
    kind: str
    document_id: UUID | None
    source_id: UUID | None
    parent_id: UUID | None = Field(description="The job that made this one")
    state: JobState
    step: str | None
    done: int
    total: int | None
    elapsed_seconds: float
    eta_seconds: float | None = Field(description="Until the stage `step` ends, at its pace so far")
    place: int | None = Field(None, description="In line, from 1, while something of it waits; not in lists")
    error: JobError | None
    options: dict[str, Any]
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    allowed_actions: list[Action]
    steps: list[StepView] = []

    @classmethod
    def of(cls, job: Job, steps: Sequence[JobStep] = (), *, place: int | None = None) -> Self:
        """What is shown of a job."""
        return cls(
            id=job.id,
            kind=job.kind,
            document_id=job.document_id,
            source_id=job.source_id,
            parent_id=job.parent_id,
            state=job.state,
            step=job.step,
            done=job.done,
            total=job.total,
            elapsed_seconds=elapsed(job),
            eta_seconds=eta_seconds(job, datetime.now(UTC)),
            place=place,
            error=JobError(code=job.error_code, detail=job.error_detail) if job.error_code else None,
            options=job.options,
            result=job.result,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            allowed_actions=list(ALLOWED_ACTIONS[job.state]),
            steps=[StepView.model_validate(step, from_attributes=True) for step in steps],
        )


# These change by themselves, without anything's happening to the job.
VOLATILE: Final = {"elapsed_seconds", "eta_seconds", "place"}


class JobListQuery(JobFilter):
    """Which jobs to list, and how many."""

    limit: int = Field(50, ge=1, le=100, description="Items on a page")
    cursor: str | None = Field(None, description="`next_cursor` of the page before")

    def page(self, session: Session) -> Page[JobView]:
        """The page that was asked for, newest first."""
        wanted = JobFilter.model_validate(self.model_dump(include=set(JobFilter.model_fields)))
        rows = selection.page(session, wanted, before=decode(self.cursor), limit=self.limit + 1)
        return page_of(rows, self.limit, lambda job: (job.created_at, job.id), JobView.of)


@router.get("", operation_id="listJobs", summary="List jobs")
def list_jobs(session: SessionDep, query: Annotated[JobListQuery, Query()]) -> Page[JobView]:
    """The tenant's jobs, newest first."""
    return query.page(session)


@router.get("/{job_id}", operation_id="getJob", summary="Show a job", response_model=JobView)
def get(job_id: UUID, session: SessionDep, it: ResourcesDep, request: Request) -> Response:
    """One job with its steps. Poll it with `If-None-Match`, or watch its events."""
    job = repository.get(session, job_id)
    view = JobView.of(job, repository.steps_of(session, job_id), place=place_in_line(it, job))
    return respond(request, view, volatile=VOLATILE)


@router.get(
    "/{job_id}/events",
    operation_id="watchJob",
    summary="Watch a job",
    response_class=EventSourceResponse,
    responses={
        200: {"description": "`job.progress` at each change, then `job.end`", "content": {"text/event-stream": {}}}
    },
)
async def watch(
    job_id: UUID,
    who: CallerDep,
    it: ResourcesDep,
    last_event_id: Annotated[str | None, Header(description="The last event seen; later ones follow")] = None,
) -> EventSourceResponse:
    """Server-sent events: step, n of m, elapsed. `Last-Event-ID` continues a cut stream."""
    seen = int(last_event_id) if last_event_id and _NUMBER.fullmatch(last_event_id) else 0
    first = await asyncio.to_thread(_read, it, who.tenant_id, job_id)
    return numbered_stream(_changes(it, who.tenant_id, first, seen), it.api.sse_heartbeat_seconds)


async def _changes(it: Resources, tenant_id: UUID, job: Job, seen: int) -> AsyncGenerator[tuple[int, Event], None]:
    place = await asyncio.to_thread(place_in_line, it, job)
    shown, look = place, 0
    while True:
        finished = job.state in FINISHED
        if job.revision > seen or place != shown or finished:
            seen, shown = job.revision, place
            yield job.revision, _event(job, place)
        if finished:
            return
        await asyncio.sleep(_LOOK_SECONDS)
        look += 1
        job = await asyncio.to_thread(_read, it, tenant_id, job.id)
        if job.revision > seen or look % _LOOKS_AT_THE_LINE == 0:
            place = await asyncio.to_thread(place_in_line, it, job)


def _read(it: Resources, tenant_id: UUID, job_id: UUID) -> Job:
    with tenant_session(it.sessions, tenant_id) as session:
        job = repository.get(session, job_id)
        session.expunge(job)
        return job


def _event(job: Job, place: int | None) -> JobProgress:
    kind = JobEnd if job.state in FINISHED else JobProgress
    return kind(
        job_id=job.id,
        state=job.state,
        step=job.step,
        done=job.done,
        total=job.total,
        elapsed_seconds=elapsed(job),
        eta_seconds=eta_seconds(job, datetime.now(UTC)),
        place=place,
        error={"code": job.error_code, "detail": job.error_detail} if job.error_code else None,
        finished_at=job.finished_at,
        allowed_actions=list(ALLOWED_ACTIONS[job.state]),
    )


def elapsed(job: Job) -> float:
    """Seconds since the job was made, up to its end."""
    return round(((job.finished_at or datetime.now(UTC)) - job.created_at).total_seconds(), 1)
