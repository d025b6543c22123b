"""Erasing a document from every store, and proof that nothing of it is left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from sluice.db.session import Sessions, tenant_session
from sluice.documents.models import Chunk, Document, DocumentVersion
from sluice.documents.repository import DocumentNotFound, delete_chunks
from sluice.errors import TemporarilyUnavailable
from sluice.identity import audit
from sluice.jobs import actions
from sluice.jobs.models import DeadLetter, Job, JobStep
from sluice.jobs.state import LIVE, JobState
from sluice.object_store import ObjectStore, document_prefix
from sluice.vector_index import VectorIndex

# A worker looks for a cancellation at least every five seconds.
_WAIT_FOR_WORKER: Final = 8.0


@dataclass(frozen=True)
class Left:
    """How much of a document each store still holds; zeros are the proof."""

    rows: int
    points: int
    objects: int


def erase(
    sessions: Sessions,
    store: ObjectStore,
    index: VectorIndex,
    tenant_id: UUID,
    document_id: UUID,
    *,
    by: UUID | None = None,
) -> Left:
    """Remove the document everywhere, as the user `by` wants it; what each store says afterwards: zeros.

    Run again, it goes on after a fault. Raises `TemporarilyUnavailable` while it cannot be finished.
    """
    with tenant_session(sessions, tenant_id) as session:
        _hide(session, document_id)
        audit.record(session, "document.delete", "document", document_id, by=by)
    if not _becomes_idle(sessions, tenant_id, document_id):
        raise _pending("a worker is still busy with it")
    index.delete_document(tenant_id, document_id)
    prefix = document_prefix(tenant_id, document_id)
    for key in store.keys(prefix):
        store.delete(key)
    with tenant_session(sessions, tenant_id) as session:
        _delete_rows(session, document_id)
    with tenant_session(sessions, tenant_id) as session:
        rows = session.scalar(select(func.count()).select_from(Chunk).where(Chunk.document_id == document_id)) or 0
        rows += session.scalar(select(func.count()).select_from(Document).where(Document.id == document_id)) or 0
    left = Left(rows=rows, points=index.count_document(tenant_id, document_id), objects=len(store.keys(prefix)))
    if left != Left(0, 0, 0):
        raise _pending(f"of it are left {left.rows} rows, {left.points} points and {left.objects} objects")
    return left


def _pending(why: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(
        f"Nobody sees the document any more, but {why}: ask again in a minute to have the rest erased.",
        code="erase_pending",
        retry_after=60.0,
    )


def _hide(session: Session, document_id: UUID) -> None:
    # Jobs before the document, the order in which a worker's last transaction locks them.
    live = session.scalars(select(Job.id).where(Job.document_id == document_id, Job.state.in_(LIVE))).all()
    actions.cancel_all(session, live)
    document = session.scalars(select(Document).where(Document.id == document_id).with_for_update()).one_or_none()
    if document is None:
        raise DocumentNotFound(f"There is no document {document_id}.")
    document.erased_at = document.erased_at or func.now()
    versions = session.scalars(select(DocumentVersion).where(DocumentVersion.document_id == document_id)).all()
    for version in versions:
        # So that the same bytes can be uploaded again at once, even if erasing takes several tries.
        version.superseded_at = version.superseded_at or func.now()


def _becomes_idle(sessions: Sessions, tenant_id: UUID, document_id: UUID) -> bool:
    """Whether no worker has a step of the document, now or a little later."""
    running = exists().where(
        JobStep.job_id == Job.id, Job.document_id == document_id, JobStep.state == JobState.RUNNING
    )
    deadline = time.monotonic() + _WAIT_FOR_WORKER
    while time.monotonic() < deadline:
        with tenant_session(sessions, tenant_id) as session:
            if not session.scalar(select(running)):
                return True
        time.sleep(0.2)
    return False


def _delete_rows(session: Session, document_id: UUID) -> None:
    versions = select(DocumentVersion.id).where(DocumentVersion.document_id == document_id)
    delete_chunks(session, session.scalars(versions).all())
    session.execute(delete(Job).where(Job.document_id == document_id).execution_options(synchronize_session=False))
    # What a parser said of the file may quote it.
    session.execute(
        delete(DeadLetter).where(DeadLetter.document_id == document_id).execution_options(synchronize_session=False)
    )
    session.execute(delete(Document).where(Document.id == document_id).execution_options(synchronize_session=False))
