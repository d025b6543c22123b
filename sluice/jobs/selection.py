"""Which jobs: a filter as people write it, and the jobs that it fits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, Field
from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.orm import Session

from sluice.jobs.confirmation import Filter
from sluice.jobs.models import Job
from sluice.jobs.state import ALLOWED_ACTIONS, Action, JobState

_Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]


class JobFilter(Filter):
    """What jobs have in common."""

    state: JobState | None = None
    kind: _Code | None = Field(None, description="`ingest`, `reindex`, `doctor` and so on")
    source_id: UUID | None = None
    document_id: UUID | None = None
    parent_id: UUID | None = Field(None, description="Of the job that made them")
    error_code: _Code | None = None
    created_after: AwareDatetime | None = Field(None, description="Made at this time or later")
    created_before: AwareDatetime | None = Field(None, description="Made before this time")

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row of `jobs` must be to fit."""
        named = ("state", "kind", "source_id", "document_id", "parent_id", "error_code")
        fit = [getattr(Job, name) == value for name in named if (value := getattr(self, name)) is not None]
        if self.created_after is not None:
            fit.append(Job.created_at >= self.created_after)
        if self.created_before is not None:
            fit.append(Job.created_at < self.created_before)
        return fit


def page(session: Session, wanted: JobFilter, *, before: tuple[datetime, UUID] | None, limit: int) -> Sequence[Job]:
    """Up to `limit` jobs that fit, newest first, older than the job that `before` names."""
    query = select(Job).where(*wanted.conditions()).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tuple_(Job.created_at, Job.id) < before)
    return session.scalars(query).all()


def count(session: Session, wanted: JobFilter, action: Action) -> int:
    """How many jobs that fit would be changed by the action."""
    return session.scalar(select(func.count()).select_from(_accepting(wanted, action).subquery())) or 0


def ids(session: Session, wanted: JobFilter, action: Action, *, limit: int) -> Sequence[UUID]:
    """The ids of up to `limit` jobs that fit and would be changed by the action, the oldest first."""
    return session.scalars(_accepting(wanted, action).order_by(Job.id).limit(limit)).all()


def accepting(action: Action) -> list[ColumnElement[bool]]:
    """What a row of `jobs` must be for the action to change it."""
    states = [state for state, allowed in ALLOWED_ACTIONS.items() if action in allowed]
    fit: list[ColumnElement[bool]] = [Job.state.in_(states)]
    if action is Action.CANCEL:
        # One that was asked to stop already is allowed to be asked again, which changes nothing.
        fit.append(Job.cancel_requested_at.is_(None))
    return fit


def _accepting(wanted: JobFilter, action: Action) -> Select[UUID]:
    return select(Job.id).where(*wanted.conditions(), *accepting(action))
