"""The outbox: messages promised in the transaction that made them necessary."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from sluice.jobs.models import JobStep, OutboxMessage
from sluice.telemetry import current_request_id
from sluice.wire.messages import RunStep

# The dispatcher listens here. PostgreSQL delivers it on commit, so it never runs ahead of the row.
CHANNEL: Final = "sluice_outbox"


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


def _row(step: JobStep) -> OutboxMessage:
    message = RunStep(tenant_id=step.tenant_id, step_id=step.id)
    request_id = current_request_id()
    return OutboxMessage(
        tenant_id=step.tenant_id,
        step_id=step.id,
        queue=step.queue,
        task=message.task_name,
        body=message.model_dump(mode="json"),
        headers={"request_id": request_id} if request_id else {},
    )


def wake_dispatcher(session: Session) -> None:
    """Tell the dispatcher, on commit, that there is something to publish or room to publish it."""
    session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
