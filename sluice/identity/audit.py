"""The audit log: who did what, in a chain that shows when an entry was changed or removed.

Each entry's digest covers its own facts and the digest before it (hash chain; Haber and Stornetta, "How to Time-Stamp a
Digital Document", 1991). The app's database role may add entries and neither change nor remove them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sluice.identity.models import AuditEntry
from sluice.telemetry import current_request_id

_FIRST: Final = bytes(32)
# Any number that no other use of advisory locks in this database has; the second key is the tenant.
_CHAIN_LOCK: Final = 7_201_002


@dataclass(frozen=True)
class Verdict:
    """What came of reading a tenant's chain: the number of entries, and the first that does not fit, if any."""

    entries: int
    broken_at: int | None
    why: str | None = None


def record(
    session: Session,
    *,
    tenant_id: UUID,
    actor_id: UUID | None,
    action: str,
    target_kind: str,
    target_id: UUID | None = None,
    **detail: Any,
) -> AuditEntry:
    """Add an entry to this transaction: it is there if and only if what it tells of was done."""
    # One writer of a chain at a time, until its transaction ends.
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
        actor_id=actor_id,
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


def page(session: Session, *, before: int | None, limit: int) -> Sequence[AuditEntry]:
    """Up to `limit` entries, newest first, with numbers below `before`."""
    query = select(AuditEntry).order_by(AuditEntry.number.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEntry.number < before)
    return session.scalars(query).all()


def verify(session: Session) -> Verdict:
    """Read the whole chain. Entries removed from its end cannot be told; keep the last digest elsewhere for that."""
    previous, number = _FIRST, 0
    for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.number).execution_options(yield_per=1000)):
        if entry.number != number + 1:
            return Verdict(number, entry.number, f"entry {number + 1} is missing")
        if entry.previous != previous:
            return Verdict(number, entry.number, "it does not follow the entry before it")
        if entry.digest != _digest(entry):
            return Verdict(number, entry.number, "it was changed")
        previous, number = entry.digest, entry.number
    return Verdict(number, None)


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
