"""Tables of the job engine."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

import sluice.identity.models  # noqa: F401 - every table refers to "tenants", which must be known first
from sluice.db.base import Base, Identified, TenantOwned, Timestamped
from sluice.jobs.state import JobState


class Job(Identified, TenantOwned, Timestamped, Base):
    """Work that a person waits for, and how far it has come."""

    __tablename__ = "jobs"

    kind: Mapped[str] = mapped_column(String(40))
    # What the work is about. No foreign keys: the job engine knows nothing of documents.
    document_id: Mapped[UUID | None] = mapped_column(index=True)
    version_id: Mapped[UUID | None] = mapped_column(index=True)

    state: Mapped[JobState] = mapped_column(default=JobState.QUEUED, server_default="queued")
    # Counts every visible change; the id of a progress event.
    revision: Mapped[int] = mapped_column(BigInteger, default=1, server_default="1")
    step: Mapped[str | None] = mapped_column(String(40))
    done: Mapped[int] = mapped_column(default=0, server_default="0")
    total: Mapped[int | None]
    parts_total: Mapped[int] = mapped_column(default=0, server_default="0")
    parts_done: Mapped[int] = mapped_column(default=0, server_default="0")
    error_code: Mapped[str | None] = mapped_column(String(60))
    error_detail: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_jobs_tenant_created", "tenant_id", "created_at", "id"), Index("ix_jobs_state", "state"))


class JobStep(Identified, TenantOwned, Timestamped, Base):
    """A piece of a job that one worker runs at a time: the unit of claim, lease, retry and message."""

    __tablename__ = "job_steps"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    step: Mapped[str] = mapped_column(String(40))
    part: Mapped[int] = mapped_column(default=0, server_default="0")
    queue: Mapped[str] = mapped_column(String(60))
    idempotency_key: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)

    state: Mapped[JobState] = mapped_column(default=JobState.QUEUED, server_default="queued")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    max_attempts: Mapped[int]
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    dispatched_at: Mapped[datetime | None]
    # What is done and need not be done again by the next attempt.
    checkpoint: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    error_code: Mapped[str | None] = mapped_column(String(60))

    __table_args__ = (
        Index("ix_job_steps_lease", "lease_until", postgresql_where=text("state = 'running'")),
        Index(
            "ix_job_steps_waiting", "queue", "dispatched_at", postgresql_where=text("state IN ('queued', 'running')")
        ),
    )


class JobAttempt(Identified, TenantOwned, Base):
    """One run of a step by one worker. Rows are added and ended once, never reset."""

    __tablename__ = "job_attempts"

    step_id: Mapped[UUID] = mapped_column(ForeignKey("job_steps.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    worker: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(20))
    error_code: Mapped[str | None] = mapped_column(String(60))
    error_detail: Mapped[str | None]

    __table_args__ = (UniqueConstraint("step_id", "attempt"),)


class OutboxMessage(Identified, TenantOwned, Timestamped, Base):
    """A message that was promised in a transaction and is published after it (transactional outbox pattern)."""

    __tablename__ = "outbox"

    step_id: Mapped[UUID] = mapped_column(ForeignKey("job_steps.id", ondelete="CASCADE"), index=True)
    queue: Mapped[str] = mapped_column(String(60))
    task: Mapped[str] = mapped_column(String(80))
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)
    headers: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_outbox_unpublished", "queue", "available_at", postgresql_where=text("published_at IS NULL")),
    )
