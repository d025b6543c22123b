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

from pydantic import Field
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from sluice.errors import Conflict, NotFound, SluiceError
from sluice.jobs.confirmation import Filter
from sluice.jobs.models import DeadLetter, Job, JobStep
from sluice.storable import made_storable

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


class Owner(StrEnum):
    """Whose letters: the session's tenant's, or nobody's, which only a session over all tenants sees."""

    TENANT = "tenant"
    NOBODY = "nobody"


class LetterFilter(Filter):
    """What dead letters have in common."""

    signature: str | None = Field(None, pattern=r"^[0-9a-f]{16}$", description="Of a group")
    job_id: UUID | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row of `dead_letters` must be to fit."""
        fit = []
        if self.signature is not None:
            fit.append(DeadLetter.signature == self.signature)
        if self.job_id is not None:
            fit.append(DeadLetter.job_id == self.job_id)
        return fit


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
    message = made_storable(str(error.facts.get("cause_message") or error.detail)[:_LONGEST_MESSAGE])
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


def get(session: Session, letter_id: UUID, owner: Owner = Owner.TENANT, *, lock: bool = False) -> DeadLetter:
    """The letter; `DeadLetterNotFound` also for another tenant's.

    To lock a letter and its job, lock the job first: whoever tries a job again locks its letters after it.
    """
    query = select(DeadLetter).where(DeadLetter.id == letter_id, _of(owner))
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    letter = session.scalars(query).one_or_none()
    if letter is None:
        raise DeadLetterNotFound(f"There is no dead letter {letter_id}.")
    return letter


def page(
    session: Session,
    wanted: LetterFilter,
    owner: Owner = Owner.TENANT,
    *,
    resolved: bool | None = None,
    before: UUID | None = None,
    limit: int,
) -> Sequence[DeadLetter]:
    """Up to `limit` letters, newest first, older than `before`; `resolved` None: both kinds."""
    query = select(DeadLetter).where(*wanted.conditions(), _of(owner)).order_by(DeadLetter.id.desc()).limit(limit)
    if resolved is not None:
        query = query.where(DeadLetter.resolved_at.is_not(None) if resolved else DeadLetter.resolved_at.is_(None))
    if before is not None:
        query = query.where(DeadLetter.id < before)
    return session.scalars(query).all()


def count_open(session: Session, wanted: LetterFilter) -> int:
    """How many open letters fit."""
    query = select(func.count()).select_from(DeadLetter).where(*wanted.conditions(), DeadLetter.resolved_at.is_(None))
    return session.scalar(query) or 0


def open_ids(session: Session, wanted: LetterFilter, *, limit: int) -> Sequence[UUID]:
    """The ids of up to `limit` open letters that fit, the oldest first."""
    query = select(DeadLetter.id).where(*wanted.conditions(), DeadLetter.resolved_at.is_(None))
    return session.scalars(query.order_by(DeadLetter.id).limit(limit)).all()


def groups(session: Session, owner: Owner = Owner.TENANT, *, limit: int = 100) -> list[Group]:
    """The open letters by kind of failure, the most frequent first; up to `limit` kinds."""
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
        .where(DeadLetter.resolved_at.is_(None), _of(owner))
        .group_by(DeadLetter.signature)
        .order_by(func.count().desc(), DeadLetter.signature)
        .limit(limit)
    )
    return [Group(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping


def discard(session: Session, letter_id: UUID, owner: Owner = Owner.TENANT, *, by: UUID | None) -> DeadLetter:
    """Say that nothing will be done about it. Again is fine; `Conflict` when it was replayed or retried."""
    letter = get(session, letter_id, owner, lock=True)
    if letter.resolved_at is None:
        resolve(session, letter, Resolution.DISCARDED, by)
    elif letter.resolution != Resolution.DISCARDED:
        raise Conflict(
            f"The letter was {letter.resolution} already; there is nothing to discard.",
            code="letter_resolved",
            resolution=letter.resolution,
        )
    return letter


def discard_all(session: Session, letter_ids: Sequence[UUID], *, by: UUID | None) -> int:
    """Discard those of these letters that are open; how many."""
    open_ones = select(DeadLetter.id).where(DeadLetter.id.in_(letter_ids), DeadLetter.resolved_at.is_(None))
    held = session.scalars(open_ones.order_by(DeadLetter.id).with_for_update()).all()
    _close(session, [DeadLetter.id.in_(held)], Resolution.DISCARDED, by)
    return len(held)


def resolve(
    session: Session, letter: DeadLetter, how: Resolution, by: UUID | None, *, replay_job_id: UUID | None = None
) -> None:
    """Close the letter."""
    letter.resolved_at = session.scalars(select(func.now())).one()
    letter.resolution = how
    letter.resolved_by = by
    letter.replay_job_id = replay_job_id


def resolve_for_jobs(
    session: Session, job_ids: Sequence[UUID], by: UUID | None, how: Resolution = Resolution.RETRIED
) -> None:
    """Close the open letters of jobs that are tried again."""
    _close(session, [DeadLetter.job_id.in_(job_ids)], how, by, replay_job_id=DeadLetter.job_id)


def _close(session: Session, which: list[ColumnElement[bool]], how: Resolution, by: UUID | None, **values: Any) -> None:
    session.execute(
        update(DeadLetter)
        .where(*which, DeadLetter.resolved_at.is_(None))
        .values(resolved_at=func.now(), resolution=how, resolved_by=by, **values)
        .execution_options(synchronize_session=False)
    )


def _of(owner: Owner) -> ColumnElement[bool]:
    return DeadLetter.tenant_id.is_(None) if owner is Owner.NOBODY else DeadLetter.tenant_id.is_not(None)
