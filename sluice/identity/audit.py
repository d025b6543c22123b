"""The audit log: who did what, in a chain that shows when an entry was changed or removed.

Each entry's digest covers its own facts and the digest before it (hash chain; Haber and Stornetta, "How to Time-Stamp a
Digital Document", 1991). The app's database role may add entries and neither change nor remove them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import Session

from sluice.db.session import TenantSession
from sluice.identity.models import AuditEntry, User
from sluice.telemetry import current_request_id

_FIRST: Final = bytes(32)
# Any number that no other use of advisory locks in this database has; the second key is the tenant.
_CHAIN_LOCK: Final = 7_201_002


@dataclass(frozen=True)
class Verdict:
    """What came of reading a tenant's chain.

    `entries` fit, the last of them with the digest `head` (hex); `broken_at` is the number of the first that does not.
    """

    entries: int
    head: str
    broken_at: int | None = None
    why: str | None = None


@dataclass(frozen=True)
class Entry:
    """An entry, and the e-mail address of who did it, while that user is there."""

    entry: AuditEntry
    actor: str | None


def record(
    session: TenantSession,
    action: str,
    target_kind: str,
    target_id: UUID | None = None,
    *,
    by: UUID | None,
    **detail: Any,
) -> AuditEntry:
    """Add an entry to this transaction: it is there if and only if what it tells of was done.

    Call it last: one transaction at a time writes a tenant's chain, and what is locked after that can deadlock.
    """
    tenant_id = session.tenant_id
    session.execute(select(func.pg_advisory_xact_lock(_CHAIN_LOCK, int.from_bytes(tenant_id.bytes[-4:], signed=True))))
    last = session.execute(
        select(AuditEntry.number, AuditEntry.digest)
        .where(AuditEntry.tenant_id == tenant_id)
        .order_by(AuditEntry.number.desc())
        .limit(1)
    ).one_or_none()
    entry = AuditEntry(
        tenant_id=tenant_id,
        number=last.number + 1 if last else 1,
        at=datetime.now(UTC),
        actor_id=by,
        action=action,
        target_kind=target_kind,
        target_id=target_id,
        detail=json.loads(json.dumps(detail, default=str)),
        request_id=current_request_id(),
        previous=last.digest if last else _FIRST,
    )
    entry.digest = _digest(entry)
    session.add(entry)
    session.flush()
    return entry


def page(session: Session, *, target_id: UUID | None = None, before: UUID | None = None, limit: int) -> list[Entry]:
    """Up to `limit` entries, newest first, older than the entry `before`; only about `target_id`, if it is given."""
    actor = select(User.email).where(User.id == AuditEntry.actor_id).scalar_subquery()
    query = select(AuditEntry, actor).order_by(AuditEntry.number.desc()).limit(limit)
    if target_id is not None:
        query = query.where(AuditEntry.target_id == target_id)
    if before is not None:
        query = query.where(AuditEntry.number < _number_of(before))
    return [Entry(*row) for row in session.execute(query)]


def verify(session: Session) -> Verdict:
    """Read the whole chain. Entries removed from its end cannot be told: keep `head` elsewhere for that."""
    chain = select(AuditEntry).order_by(AuditEntry.number).execution_options(yield_per=1000)
    previous, number = _FIRST, 0
    with session.scalars(chain) as entries:
        for entry in entries:
            wrong = _what_is_wrong(entry, previous, number)
            if wrong:
                return Verdict(number, previous.hex(), entry.number, wrong)
            previous, number = entry.digest, entry.number
    return Verdict(number, previous.hex())


def _what_is_wrong(entry: AuditEntry, previous: bytes, number: int) -> str | None:
    if entry.number != number + 1:
        return f"entry {number + 1} is missing"
    if entry.previous != previous:
        return "it does not follow the entry before it"
    return None if entry.digest == _digest(entry) else "it was changed"


def _number_of(entry_id: UUID) -> ScalarSelect[int]:
    return select(AuditEntry.number).where(AuditEntry.id == entry_id).scalar_subquery()


def _digest(entry: AuditEntry) -> bytes:
    facts = [
        str(entry.tenant_id),
        entry.number,
        entry.at.astimezone(UTC).isoformat(),
        str(entry.actor_id),
        entry.action,
        entry.target_kind,
        str(entry.target_id),
        entry.detail,
        entry.request_id,
    ]
    content = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(entry.previous + content.encode()).digest()
