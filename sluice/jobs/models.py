"""Tables of the job engine."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

import sluice.identity.models  # noqa: F401 - every table refers to "tenants", which must be known first
from sluice.db.base import CURRENT_TENANT, Base, Identified, TenantOwned, Timestamped
from sluice.jobs.state import JobState


class _Hot(TenantOwned):
    """A row that changes all the time, and belongs to a job, with which it goes.

    Its tenant has no index of its own, which every change would have to keep up. Such an index is never the best way
    to such a row either, but PostgreSQL takes it for that while it has no statistics, as after a restore, and then
    reads all of a tenant's rows to change one. Nor is its tenant a reference, which would lock the tenant's row with
    every insert; that of the job is one.
    """

    tenant_id: Mapped[UUID] = mapped_column(server_default=text(CURRENT_TENANT), sort_order=-9)


class Job(Identified, TenantOwned, Timestamped, Base):
    """Work that a person waits for, and how far it has come."""

    __tablename__ = "jobs"

    # Without an index of its own, for the reasons of `_Hot`.
    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), server_default=text(CURRENT_TENANT), sort_order=-9
    )
    kind: Mapped[str] = mapped_column(String(40))
    # What the work is about. No foreign keys: the job engine knows nothing of documents.
    document_id: Mapped[UUID | None] = mapped_column(index=True)
    version_id: Mapped[UUID | None] = mapped_column(index=True)
    source_id: Mapped[UUID | None]
    # The job that made this one.
    parent_id: Mapped[UUID | None] = mapped_column(index=True)
    # How the work shall differ from the usual, and what came of it; each kind of job says what it understands.
    options: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)

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
    # When the stage that `step` names began; what is left of it is estimated from here.
    stage_started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        # None has the state: a change of nothing that an index has is written in the row's own page alone (HOT).
        Index("ix_jobs_tenant_created", "tenant_id", "created_at", "id"),
        Index("ix_jobs_source", "tenant_id", "source_id"),
        # Few among all jobs, and looked for at every sweep.
        Index("ix_jobs_doctor", "tenant_id", "created_at", postgresql_where=text("kind = 'doctor'")),
    )


class JobStep(Identified, _Hot, Timestamped, Base):
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
    # The advisory lock that the process of the current attempt holds for as long as it lives.
    holder: Mapped[int | None] = mapped_column(BigInteger)
    dispatched_at: Mapped[datetime | None]
    # What is done and need not be done again by the next attempt.
    checkpoint: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    error_code: Mapped[str | None] = mapped_column(String(60))

    __table_args__ = (
        Index(
            "ix_job_steps_waiting", "queue", "dispatched_at", postgresql_where=text("state IN ('queued', 'running')")
        ),
    )


class JobAttempt(Identified, _Hot, Base):
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


class OutboxMessage(Identified, _Hot, Timestamped, Base):
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
        Index(
            "ix_outbox_waiting",
            "tenant_id",
            "queue",
            "available_at",
            "id",
            postgresql_where=text("published_at IS NULL"),
        ),
        Index("ix_outbox_turns", "tenant_id", "queue", "published_at"),
        Index("ix_outbox_published", "published_at", postgresql_where=text("published_at IS NOT NULL")),
    )


class DeadLetter(Identified, TenantOwned, Timestamped, Base):
    """Work that was given up, or a message that nobody could read: what a person has to look at."""

    __tablename__ = "dead_letters"

    # Nobody's, when a message cannot be read.
    tenant_id: Mapped[UUID | None] = mapped_column(  # type: ignore[assignment] # every other row has an owner
        ForeignKey("tenants.id", ondelete="CASCADE"), server_default=text(CURRENT_TENANT), index=True, sort_order=-9
    )
    # "job": a step failed for good; "broker": RabbitMQ gave a message up.
    origin: Mapped[str] = mapped_column(String(10))
    message_id: Mapped[str | None] = mapped_column(String(100), unique=True)
    queue: Mapped[str | None] = mapped_column(String(100))
    # The error's code, or the broker's reason (rejected, delivery_limit, expired, unrouted).
    reason: Mapped[str] = mapped_column(String(60))
    # The same for failures of the same kind, whatever document they struck.
    signature: Mapped[str] = mapped_column(String(16))
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    step_id: Mapped[UUID | None]
    document_id: Mapped[UUID | None]
    step: Mapped[str | None] = mapped_column(String(40))
    part: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    error_class: Mapped[str | None] = mapped_column(String(120))
    error_message: Mapped[str | None]
    # How far the work had come: {"stage", "done", "total"}, and "page" where a parser names one.
    position: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    headers: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    body: Mapped[str | None]
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None] = mapped_column(String(20))  # "replayed", "retried" or "discarded"
    resolved_by: Mapped[UUID | None]
    replay_job_id: Mapped[UUID | None]

    __table_args__ = (Index("ix_dead_letters_open", "tenant_id", "resolved_at", "id"),)


class Worker(Identified, Base):
    """A worker process that said lately that it is there. No tenant's: workers serve all of them."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200))
    concurrency: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
