"""How long a job will still take, as far as that can be known."""

from __future__ import annotations

from datetime import datetime

from sluice.jobs.models import Job
from sluice.jobs.state import JobState


def eta_seconds(job: Job, now: datetime) -> float | None:
    """Seconds until the stage that the job is in ends, at the pace it has had so far; None when that says nothing."""
    if job.state is not JobState.RUNNING or job.stage_started_at is None or not job.total or job.done <= 0:
        return None
    passed = max((now - job.stage_started_at).total_seconds(), 0.0)
    return round(passed / job.done * max(job.total - job.done, 0), 1)
