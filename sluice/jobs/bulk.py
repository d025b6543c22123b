"""One action on all jobs that a filter fits, in transactions of a hundred, so that no lock is held for long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

from sluice.db.session import Sessions, tenant_session
from sluice.identity import audit
from sluice.jobs import actions, confirmation, selection
from sluice.jobs.selection import JobFilter
from sluice.jobs.state import Action
from sluice.settings import JobSettings

_BATCH: Final = 100


@dataclass(frozen=True)
class Outcome:
    """How many matched, how many of them were changed, and how many were not, because their state changed meanwhile."""

    matching: int
    changed: int
    skipped: int


def change(
    sessions: Sessions,
    tenant_id: UUID,
    wanted: JobFilter,
    action: Action,
    *,
    confirm: int | None,
    settings: JobSettings,
    by: UUID,
) -> Outcome:
    """Do the action to every job that fits and accepts it: exactly those that were counted.

    The audit log says before the first change what is going to be done, and after the last what came of it. Raises
    `Invalid` for an empty filter, and `Conflict` unless `confirm` is the number of jobs that match.
    """
    wanted.require_some()
    with tenant_session(sessions, tenant_id) as session:
        chosen = confirmation.confirmed(
            confirm,
            count=lambda: selection.count(session, wanted, action),
            read=lambda limit: selection.ids(session, wanted, action, limit=limit),
        )
        audit.record(session, f"jobs.{action}", "jobs", by=by, filter=wanted.as_facts(), matching=len(chosen))
    changed = 0
    for batch in batches(chosen):
        with tenant_session(sessions, tenant_id) as session:
            if action is Action.CANCEL:
                changed += len(actions.cancel_all(session, batch))
            else:
                changed += len(actions.retry_all(session, batch, settings, by=by))
    outcome = Outcome(len(chosen), changed, len(chosen) - changed)
    with tenant_session(sessions, tenant_id) as session:
        audit.record(session, f"jobs.{action}.done", "jobs", by=by, filter=wanted.as_facts(), **asdict(outcome))
    return outcome


def batches(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    """The ids in pieces that one transaction changes."""
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
