"""`/api/admin/jobs`: what an administrator may do to a job."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from services.api.dependencies import ResourcesDep
from services.api.routes.jobs import JobView
from services.api.sessions import SessionDep
from sluice.jobs import repository

router = APIRouter(prefix="/api/admin/jobs", tags=["Administration"])


@router.post("/{job_id}:cancel", operation_id="cancelJob", summary="Cancel a job")
def cancel(job_id: UUID, session: SessionDep) -> JobView:
    """Stop the job: at once while it waits, within seconds while it runs. 409 when it has ended."""
    return JobView.of(repository.cancel(session, job_id))


@router.post("/{job_id}:retry", operation_id="retryJob", summary="Try a job again")
def retry(job_id: UUID, session: SessionDep, it: ResourcesDep) -> JobView:
    """Try a failed or canceled job again from its last checkpoint. 409 in any other state."""
    return JobView.of(repository.retry(session, job_id, it.jobs))
