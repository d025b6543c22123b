"""What was tried: the attempts of a job's steps, which are added and never reset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from sluice.jobs.models import JobAttempt, JobStep


@dataclass(frozen=True)
class Attempt:
    """One run of a step by one worker; `outcome` None: it goes on."""

    step: str
    part: int
    attempt: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    error_code: str | None
    error_detail: str | None


def of_job(session: Session, job_id: UUID) -> list[Attempt]:
    """Every attempt of the job's steps, in the order in which they began."""
    rows = session.execute(
        select(
            JobStep.step,
            JobStep.part,
            JobAttempt.attempt,
            JobAttempt.worker,
            JobAttempt.started_at,
            JobAttempt.ended_at,
            JobAttempt.outcome,
            JobAttempt.error_code,
            JobAttempt.error_detail,
        )
        .join(JobStep, JobStep.id == JobAttempt.step_id)
        .where(JobStep.job_id == job_id)
        .order_by(JobAttempt.started_at, JobAttempt.id)
    )
    return [Attempt(*row) for row in rows]
