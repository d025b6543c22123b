"""`/api/admin/audit`: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.api.paging import CursorParam, LimitParam, Page, decode, page_of
from services.api.sessions import SessionDep
from sluice.identity import audit
from sluice.identity.audit import Entry, Verdict

router = APIRouter(prefix="/api/admin/audit", tags=["Administration"])


class AuditView(BaseModel):
    """An entry of the audit log."""

    id: UUID
    number: int = Field(description="1, 2, 3 and so on in the tenant, without a gap")
    at: datetime
    actor_id: UUID | None = Field(description="None: the platform itself")
    actor: str | None = Field(description="E-mail address, while that user is there")
    action: str
    target_kind: str
    target_id: UUID | None
    detail: dict[str, Any]
    request_id: str | None
    digest: str = Field(description="SHA-256 of this entry and the digest before it, hex")

    @classmethod
    def of(cls, found: Entry) -> Self:
        """What is shown of an entry."""
        entry = found.entry
        named = ("id", "number", "at", "actor_id", "action", "target_kind", "target_id", "detail", "request_id")
        shown = {name: getattr(entry, name) for name in named}
        return cls.model_validate({**shown, "actor": found.actor, "digest": entry.digest.hex()})


class VerdictView(BaseModel):
    """Whether the log is whole."""

    intact: bool
    entries: int = Field(description="How many fit, from the first one on")
    head: str = Field(description="Digest of the last of them; kept elsewhere, it shows when the end was cut off")
    broken_at: int | None = Field(description="Number of the first entry that does not fit")
    why: str | None

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        """What is shown of a verdict."""
        return cls(
            intact=verdict.broken_at is None,
            entries=verdict.entries,
            head=verdict.head,
            broken_at=verdict.broken_at,
            why=verdict.why,
        )


@router.get("", operation_id="listAudit", summary="List the audit log")
def list_entries(
    session: SessionDep,
    target_id: Annotated[UUID | None, Query(description="Only what was done to this")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Page[AuditView]:
    """What administrators did, newest first."""
    position = decode(cursor)
    rows = audit.page(session, target_id=target_id, before=position[1] if position else None, limit=limit + 1)
    return page_of(rows, limit, lambda found: (found.entry.at, found.entry.id), AuditView.of)


@router.get(":verify", operation_id="verifyAudit", summary="Verify the audit log")
def verify(session: SessionDep) -> VerdictView:
    """Read the whole log and say whether an entry was changed or removed."""
    return VerdictView.of(audit.verify(session))
