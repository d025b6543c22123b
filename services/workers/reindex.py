"""Reindex: every document of a source handed out to be read again, a batch at a time."""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from services.workers.lease import Lease
from services.workers.resources import Resources
from services.workers.turns import Turn, go_on_later
from sluice.db.session import tenant_session
from sluice.documents.models import Document
from sluice.documents.reread import VersionNotFound, reread
from sluice.jobs import claims
from sluice.jobs.claims import Claim
from sluice.jobs.maintenance import next_step
from sluice.jobs.models import Job

_BATCH: Final = 50


def reindex(it: Resources, claim: Claim, lease: Lease) -> None:
    """Have each document of the source that search shows read again; ready when all are handed out.

    Run again, it goes on after the last batch that was handed out whole.
    """
    turn = Turn()
    if "total" not in claim.checkpoint:
        _begin(it, claim)
    while not turn.is_over():
        lease.check()
        if not _hand_out(it, claim):
            claims.finish_at_once(it.sessions, claim, {"documents": claim.checkpoint["done"]})
            return
    go_on_later(it, claim, next_step(claim.job_id, claim.step, claim.part + 1, it.jobs))


def _begin(it: Resources, claim: Claim) -> None:
    with tenant_session(it.sessions, claim.tenant_id) as session:
        total = session.scalar(_shown(session, claim).with_only_columns(func.count())) or 0
        claims.checkpoint(session, claim, total=total, done=0, after=None)


def _hand_out(it: Resources, claim: Claim) -> bool:
    """Hand out the next batch, in one transaction with the note that it was; whether there was one."""
    with tenant_session(it.sessions, claim.tenant_id) as session:
        query = _shown(session, claim).order_by(Document.id).limit(_BATCH)
        if claim.checkpoint["after"] is not None:
            query = query.where(Document.id > UUID(claim.checkpoint["after"]))
        documents = session.execute(query).all()
        if not documents:
            return False
        done = claim.checkpoint["done"] + len(documents)
        claims.checkpoint(session, claim, done=done, after=str(documents[-1].id))
        # Documents that came meanwhile are handed out too.
        claims.progress(session, claim, "reindex", done, max(done, claim.checkpoint["total"]))
        for document in documents:
            # Erased in this moment: nothing is left to read.
            with suppress(VersionNotFound):
                reread(session, document.active_version_id, settings=it.jobs, parent_id=claim.job_id)
    return True


def _shown(session: Session, claim: Claim) -> Select[UUID, UUID | None]:
    source_id = session.scalar(select(Job.source_id).where(Job.id == claim.job_id))
    return select(Document.id, Document.active_version_id).where(
        Document.source_id == source_id, Document.active_version_id.is_not(None), Document.erased_at.is_(None)
    )
