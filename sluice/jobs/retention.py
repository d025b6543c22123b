"""What is not kept for ever, and what is looked after from time to time, over all tenants."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, exists, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from sluice.db.base import Base
from sluice.identity.idempotency import KEPT
from sluice.identity.models import IdempotencyKey, Tenant
from sluice.ids import first_id_of
from sluice.jobs.maintenance import DOCTOR, submit_doctor
from sluice.jobs.models import DeadLetter, Job, JobAttempt, JobStep, OutboxMessage, Worker
from sluice.jobs.state import FINISHED, JobState
from sluice.settings import JobSettings

# Rows that one call removes from a table: no lock is held for long, and the next call goes on.
LIMIT: Final = 5_000
# Tenants that one call has looked after.
_SWEEPS: Final = 100
_DAY: Final = timedelta(days=1)
_LETTERS: Final = timedelta(days=90)
# What a doctor's job says of each store; `sluice.documents.doctor` writes it.
STORES: Final = ("qdrant", "s3", "postgres")


def prune(session: Session, settings: JobSettings, *, limit: int = LIMIT) -> dict[str, int]:
    """Remove what has been kept for long enough, at most `limit` rows of each table; how many of each."""
    since = datetime.now(UTC) - timedelta(days=settings.attempts_days)
    finished = exists().where(
        JobStep.id == JobAttempt.step_id,
        JobStep.job_id == Job.id,
        Job.state.in_(FINISHED),
        Job.finished_at < since,
    )
    return {
        "outbox": _remove(session, OutboxMessage, limit, OutboxMessage.published_at < func.now() - _DAY),
        # By their ids, which are ordered by time: no index on `ended_at` is needed.
        "job_attempts": _remove(
            session, JobAttempt, limit, JobAttempt.id < first_id_of(since), JobAttempt.ended_at < since, finished
        ),
        "dead_letters": _remove(session, DeadLetter, limit, DeadLetter.resolved_at < func.now() - _LETTERS),
        "workers": _remove(session, Worker, limit, Worker.heartbeat_at < func.now() - _DAY),
        "idempotency_keys": _remove(session, IdempotencyKey, limit, IdempotencyKey.created_at < func.now() - KEPT),
    }  # fmt: skip


def submit_due_sweeps(session: Session, settings: JobSettings) -> int:
    """Have the stores of each tenant mended that nobody has looked at for `doctor_hours`; how many tenants."""
    if settings.doctor_hours == 0:
        return 0
    since = func.now() - timedelta(hours=settings.doctor_hours)
    recent = exists().where(Job.tenant_id == Tenant.id, Job.kind == DOCTOR, Job.created_at > since)
    due = session.scalars(
        # A new tenant has nothing that could have drifted yet.
        select(Tenant.id).where(Tenant.created_at < since, ~recent).order_by(Tenant.id).limit(_SWEEPS)
    ).all()
    for tenant_id in due:
        submit_doctor(session, tenant_id, settings, repair=True)
    return len(due)


def drift(session: Session) -> dict[tuple[str, str], int]:
    """How far the stores were apart when each tenant's was last looked at, by store and kind, over all tenants."""
    total: Counter[tuple[str, str]] = Counter()
    for result in session.scalars(_latest_results()):
        for store in STORES:
            for kind, number in result.get(store, {}).items():
                total[store, kind] += number
    return dict(total)


def _latest_results() -> Select[dict[str, Any]]:
    latest = (
        select(Job.id)
        .where(Job.kind == DOCTOR, Job.state == JobState.READY, Job.result.is_not(None))
        .ext(distinct_on(Job.tenant_id))
        .order_by(Job.tenant_id, Job.finished_at.desc())
        .subquery()
    )
    return select(Job.result).where(Job.id.in_(select(latest.c.id)))


def _remove(session: Session, table: type[Base], limit: int, *wanted: ColumnElement[bool]) -> int:
    row: Any = table
    # Locked rows are another dispatcher's, or somebody's who is just changing them: next time.
    chosen = select(row.id).where(*wanted).limit(limit).with_for_update(skip_locked=True, of=row)
    ids: list[UUID] = list(session.scalars(chosen))
    if ids:
        session.execute(delete(row).where(row.id.in_(ids)).execution_options(synchronize_session=False))
    return len(ids)
