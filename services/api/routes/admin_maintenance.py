"""`/api/admin/doctor` and `/api/admin/sources/{id}:reindex`: maintenance that an administrator asks for."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from services.api.auth import CallerDep
from services.api.dependencies import ResourcesDep
from services.api.idempotency import ONCE
from services.api.routes.jobs import JobView
from services.api.sessions import SessionDep
from sluice.documents.repository import get_source
from sluice.identity import audit
from sluice.jobs import maintenance
from sluice.jobs.models import Job

router = APIRouter(prefix="/api/admin", tags=["Administration"])


class Checkup(BaseModel):
    """What the doctor is to do."""

    model_config = ConfigDict(extra="forbid")

    repair: bool = Field(False, description="Mend what is found, then look again")


@router.post("/doctor", operation_id="startDoctor", status_code=202, summary="Compare the stores", dependencies=[ONCE])
def doctor(wanted: Checkup, session: SessionDep, who: CallerDep, it: ResourcesDep, response: Response) -> JobView:
    """Compare what PostgreSQL, the object store and the vector index have of the tenant; the job's `result` says it.

    While such a job is live, asking again answers with that job.
    """
    job = maintenance.submit_doctor(session, who.tenant_id, it.jobs, repair=wanted.repair)
    audit.record(session, "doctor.start", "job", job.id, by=who.user_id, repair=wanted.repair)
    return _accepted(job, response)


@router.post(
    "/sources/{source_id}:reindex",
    operation_id="reindexSource",
    status_code=202,
    summary="Reindex a source",
    dependencies=[ONCE],
)
def reindex(source_id: UUID, session: SessionDep, who: CallerDep, it: ResourcesDep, response: Response) -> JobView:
    """Read every document of the source again, with today's model and chunker. Search shows what it has until then.

    The job is ready when all are handed out; their jobs name it as `parent_id`. While it is live, asking again answers
    with the same job.
    """
    get_source(session, source_id)
    job = maintenance.submit_reindex(session, who.tenant_id, source_id, it.jobs)
    audit.record(session, "source.reindex", "source", source_id, by=who.user_id, job_id=str(job.id))
    return _accepted(job, response)


def _accepted(job: Job, response: Response) -> JobView:
    response.headers["Location"] = f"/api/jobs/{job.id}"
    return JobView.of(job)
