"""Maintenance jobs: about a source or a whole tenant. Whoever asks for one that is live already gets that one."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sluice.ids import new_id
from sluice.jobs import repository
from sluice.jobs.lanes import MAINTENANCE
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import LIVE, JobState
from sluice.settings import JobSettings

DOCTOR: Final = "doctor"
REINDEX: Final = "reindex"


def submit_doctor(session: Session, tenant_id: UUID, settings: JobSettings, *, repair: bool) -> Job:
    """Have the tenant's stores compared, and mended if `repair`; the live job that does so already, if there is one."""
    return _submit(session, tenant_id, DOCTOR, settings, subject=tenant_id, options={"repair": repair})


def submit_reindex(session: Session, tenant_id: UUID, source_id: UUID, settings: JobSettings) -> Job:
    """Have every document of the source read again; the live job that does so already, if there is one."""
    return _submit(session, tenant_id, REINDEX, settings, subject=source_id, source_id=source_id)


def next_step(job_id: UUID, kind: str, part: int, settings: JobSettings) -> JobStep:
    """The step that goes on where part `part - 1` has stopped: long work takes many short turns."""
    key = repository.idempotency_key(source_id=job_id, content_hash=kind, version_id=job_id, step=kind, part=part)
    return JobStep(
        step=kind, part=part, queue=MAINTENANCE, max_attempts=settings.max_attempts, idempotency_key=key, checkpoint={}
    )


def _submit(
    session: Session,
    tenant_id: UUID,
    kind: str,
    settings: JobSettings,
    *,
    subject: UUID,
    source_id: UUID | None = None,
    options: dict[str, Any] | None = None,
) -> Job:
    # Of two people who ask at once, the second waits here and sees the job of the first.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{kind}:{subject}", 0))))
    live = session.scalars(
        select(Job)
        .where(
            Job.tenant_id == tenant_id,
            Job.kind == kind,
            Job.source_id == source_id if source_id else Job.source_id.is_(None),
            Job.document_id.is_(None),
            Job.state.in_(LIVE),
            Job.cancel_requested_at.is_(None),
        )
        .order_by(Job.id)
    )
    wanted = options or {}
    for job in live:
        if job.options == wanted:
            return job
    job = Job(
        id=new_id(), tenant_id=tenant_id, kind=kind, source_id=source_id, options=wanted, state=JobState.QUEUED
    )  # fmt: skip
    return repository.submit(session, job, next_step(job.id, kind, 0, settings))
