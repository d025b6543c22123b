"""The outbox: messages promised in the transaction that made them necessary."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from sluice.jobs.models import JobStep, OutboxMessage
from sluice.telemetry import passed_on
from sluice.wire.messages import RunStep

# The dispatcher listens here. PostgreSQL delivers it on commit, so it never runs ahead of the row.
CHANNEL: Final = "sluice_outbox"
# And here, while it has messages for which their queue has no room.
ROOM: Final = "sluice_room"
# Steps may be over in a millisecond; a notification holds a lock of the whole server while its transaction commits.
_NEWS_SECONDS: Final = 0.02


def promise(session: Session, step: JobStep, available_at: datetime | None = None) -> None:
    """Have the step's message published once this transaction is committed, not before `available_at`."""
    row = _row(step)
    if available_at is not None:
        row.available_at = available_at
    session.add(row)
    wake_dispatcher(session)


def promise_all(session: Session, steps: Iterable[JobStep]) -> None:
    """Have the messages of these steps published, in one insert and with one call of the dispatcher."""
    session.add_all([_row(step) for step in steps])
    wake_dispatcher(session)


def withdraw(session: Session, step_ids: Sequence[UUID]) -> None:
    """Take back what was promised for these steps and is not published yet, so that nobody stands in line behind it.

    What the dispatcher is publishing just now is left to it: a worker finds nothing to claim. Waiting for it would
    make a person wait for the broker.
    """
    unpublished = (
        select(OutboxMessage.id)
        .where(OutboxMessage.step_id.in_(step_ids), OutboxMessage.published_at.is_(None))
        .order_by(OutboxMessage.id)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        delete(OutboxMessage)
        .where(OutboxMessage.id.in_(unpublished.scalar_subquery()))
        .execution_options(synchronize_session=False)
    )


def _row(step: JobStep) -> OutboxMessage:
    message = RunStep(tenant_id=step.tenant_id, step_id=step.id)
    return OutboxMessage(
        tenant_id=step.tenant_id,
        step_id=step.id,
        queue=step.queue,
        task=message.task_name,
        body=message.model_dump(mode="json"),
        headers=passed_on(),
    )


def wake_dispatcher(session: Session) -> None:
    """Tell the dispatcher, on commit, that there is something to publish."""
    _notify(session, CHANNEL)


def tell_of_room(session: Session) -> None:
    """Tell the dispatcher, on commit, that a queue has room again."""
    _notify(session, ROOM)


class _News:
    """Whether what was said is news again, because it was a while ago. Losing a race of threads is harmless."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said_at = -seconds

    def again(self) -> bool:
        """Whether to say it now."""
        now = time.monotonic()
        if now - self._said_at < self._seconds:
            return False
        self._said_at = now
        return True


# Not always: see _NEWS_SECONDS. A dispatcher that waits for room looks by itself before long.
room_is_news: Final = _News(_NEWS_SECONDS).again


def _notify(session: Session, channel: str) -> None:
    session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})
