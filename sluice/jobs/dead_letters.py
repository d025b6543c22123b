"""Dead letters: work that was given up, and messages that nobody could read, until a person has dealt with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from sluice.errors import Conflict, NotFound, SluiceError
from sluice.jobs.models import DeadLetter, Job, JobStep

# What differs between two failures of the same kind: ids, digests, numbers, quoted names.
_PARTICULARS: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[0-9a-f]{16,}\b|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\"", re.IGNORECASE
)
_LONGEST_MESSAGE: Final = 2_000


class DeadLetterNotFound(NotFound):
    """No such dead letter."""

    code = "dead_letter_not_found"


class Resolution(StrEnum):
    """How a person dealt with a dead letter."""

    REPLAYED = "replayed"
    RETRIED = "retried"  # its job was tried again
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Group:
    """Failures of one kind: how many are open, and when they happened."""

    signature: str
    reason: str
    step: str | None
    error_class: str | None
    error_message: str | None
    open: int
    first_at: datetime
    last_at: datetime


def signature_of(step: str | None, reason: str, error_class: str | None, message: str | None) -> str:
    """16 hex digits, the same for failures that differ only in ids, numbers and quoted names."""
    kind = _PARTICULARS.sub("#", message or "")[:200]
    return hashlib.sha256("|".join((step or "", reason, error_class or "", kind)).encode()).hexdigest()[:16]


def give_up(session: Session, job: Job, step: JobStep, error: SluiceError) -> DeadLetter:
    """Write down that this step failed for good, in the transaction that makes it so."""
    error_class = error.facts.get("cause_class") or type(error).__name__
    message = str(error.facts.get("cause_message") or error.detail)[:_LONGEST_MESSAGE]
    position: dict[str, Any] = {"stage": job.step, "done": job.done, "total": job.total}
    if "page" in error.facts:
        position["page"] = error.facts["page"]
    letter = DeadLetter(
        tenant_id=step.tenant_id,
        origin="job",
        queue=step.queue,
        reason=error.code,
        signature=signature_of(step.step, error.code, error_class, message),
        job_id=job.id,
        step_id=step.id,
        document_id=job.document_id,
        step=step.step,
        part=step.part,
        attempts=step.attempt,
        error_class=error_class,
        error_message=message,
        position=position,
    )
    session.add(letter)
    return letter


def get(session: Session, letter_id: UUID, *, lock: bool = False) -> DeadLetter:
    """The letter; `DeadLetterNotFound` also for another tenant's."""
    query = select(DeadLetter).where(DeadLetter.id == letter_id)
    letter = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if letter is None:
        raise DeadLetterNotFound(f"There is no dead letter {letter_id}.")
    return letter


def page(
    session: Session,
    *,
    resolved: bool | None = False,
    signature: str | None = None,
    job_id: UUID | None = None,
    before: UUID | None = None,
    limit: int,
) -> Sequence[DeadLetter]:
    """Up to `limit` letters, newest first, older than `before`; `resolved` None: both kinds."""
    query = select(DeadLetter).order_by(DeadLetter.id.desc()).limit(limit)
    if resolved is not None:
        query = query.where(DeadLetter.resolved_at.is_not(None) if resolved else DeadLetter.resolved_at.is_(None))
    if signature is not None:
        query = query.where(DeadLetter.signature == signature)
    if job_id is not None:
        query = query.where(DeadLetter.job_id == job_id)
    if before is not None:
        query = query.where(DeadLetter.id < before)
    return session.scalars(query).all()


def groups(session: Session) -> list[Group]:
    """The open letters by kind of failure, the most frequent first."""
    rows = session.execute(
        select(
            DeadLetter.signature,
            func.min(DeadLetter.reason).label("reason"),
            func.min(DeadLetter.step).label("step"),
            func.min(DeadLetter.error_class).label("error_class"),
            func.min(DeadLetter.error_message).label("error_message"),
            func.count().label("open"),
            func.min(DeadLetter.created_at).label("first_at"),
            func.max(DeadLetter.created_at).label("last_at"),
        )
        .where(DeadLetter.resolved_at.is_(None))
        .group_by(DeadLetter.signature)
        .order_by(func.count().desc(), DeadLetter.signature)
    )
    return [Group(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping


def discard(session: Session, letter_id: UUID, by: UUID | None) -> DeadLetter:
    """Say that nothing will be done about it. Again is fine; `Conflict` when it was replayed or retried."""
    letter = get(session, letter_id, lock=True)
    if letter.resolved_at is None:
        resolve(session, letter, Resolution.DISCARDED, by)
    elif letter.resolution != Resolution.DISCARDED:
        raise Conflict(
            f"The letter was {letter.resolution} already; there is nothing to discard.", code="letter_resolved"
        )
    return letter


def resolve(
    session: Session, letter: DeadLetter, how: Resolution, by: UUID | None, *, replay_job_id: UUID | None = None
) -> None:
    """Close the letter."""
    letter.resolved_at = session.scalars(select(func.now())).one()
    letter.resolution = how
    letter.resolved_by = by
    letter.replay_job_id = replay_job_id


def resolve_for_job(session: Session, job_id: UUID, by: UUID | None) -> None:
    """Close the open letters of a job that is tried again."""
    session.execute(
        update(DeadLetter)
        .where(DeadLetter.job_id == job_id, DeadLetter.resolved_at.is_(None))
        .values(resolved_at=func.now(), resolution=Resolution.RETRIED, resolved_by=by, replay_job_id=job_id)
        .execution_options(synchronize_session=False)
    )
