"""Requests that may be sent twice: the first one is done, the others get its answer.

The header `Idempotency-Key` names a request (IETF draft "The Idempotency-Key HTTP Header Field", section 2). An answer
is kept for a day. A request whose server died before it could answer is done again after a minute: what it created
is then found by its own name or content.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from sluice.errors import Conflict, Invalid
from sluice.identity.models import IdempotencyKey
from sluice.ids import new_id

KEPT: Final = timedelta(days=1)
# Longer than any creating request takes that is not given up by nginx.
_TAKES_AT_MOST: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Answer:
    """What was answered to a request."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ticket:
    """The right to answer a request, until somebody else has begun to."""

    tenant_id: UUID
    key_id: UUID
    attempt: int


def begin(session: Session, *, tenant_id: UUID, user_id: UUID, key: str, fingerprint: bytes) -> Ticket | Answer:
    """The right to answer this request, or the answer that it has had.

    `Invalid` when the user has named another request so, `Conflict` while somebody is answering this one.
    """
    facts = {"id": new_id(), "user_id": user_id, "key": key, "fingerprint": fingerprint}
    added = session.scalar(
        insert(IdempotencyKey)
        .values(facts)
        .on_conflict_do_nothing(index_elements=["user_id", "key"])
        .returning(IdempotencyKey.id)
    )
    if added is not None:
        return Ticket(tenant_id, added, 1)
    known = session.scalars(
        select(IdempotencyKey).where(IdempotencyKey.user_id == user_id, IdempotencyKey.key == key).with_for_update()
    ).one_or_none()
    if known is None:
        # Forgotten between the two looks: the first request was refused, or is too long ago.
        return begin(session, tenant_id=tenant_id, user_id=user_id, key=key, fingerprint=fingerprint)
    if known.fingerprint != fingerprint:
        raise Invalid(
            f"The Idempotency-Key {key!r} was used for another request. Make a new key for each request, and keep it "
            "for its repetitions alone.",
            code="idempotency_key_reused",
        )
    if known.status is not None:
        return Answer(known.status, known.body or "", known.headers)
    now = session.scalars(select(func.now())).one()
    if known.begun_at > now - _TAKES_AT_MOST:
        raise Conflict(
            f"A request with the Idempotency-Key {key!r} is being answered. Ask again in a moment for its answer.",
            code="request_in_progress",
        )
    known.attempt += 1
    known.begun_at = now
    return Ticket(tenant_id, known.id, known.attempt)


def keep(session: Session, ticket: Ticket, answer: Answer) -> None:
    """Write down what was answered, for whoever asks again."""
    session.execute(
        update(IdempotencyKey)
        .where(*_is(ticket))
        .values(status=answer.status, headers=answer.headers, body=answer.body)
        .execution_options(synchronize_session=False)
    )


def release(session: Session, ticket: Ticket) -> None:
    """Forget the request: it was refused or failed, and may be tried again."""
    session.execute(delete(IdempotencyKey).where(*_is(ticket)).execution_options(synchronize_session=False))


def _is(ticket: Ticket) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyKey.id == ticket.key_id,
        IdempotencyKey.attempt == ticket.attempt,
        IdempotencyKey.status.is_(None),
    )
