"""Ingest: extract, chunk, embed, upsert, and one final transaction that shows the document.

Each stage leaves a checkpoint, and every id is derived from what it names, so that running any of it again changes
nothing. Up to `PART` chunks all stages run in one step; a longer document is handed out in parts, and one that takes
long to cut is cut in several steps.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.workers import extraction, indexing
from services.workers.lease import Lease
from services.workers.resources import Resources
from services.workers.turns import Turn, go_on_later
from sluice.broker import EMBED, INGEST
from sluice.db.session import tenant_session
from sluice.documents import indexed, precedence
from sluice.documents.indexed import ModelVersions
from sluice.documents.models import Chunk, Document, DocumentVersion
from sluice.documents.repository import delete_chunks
from sluice.documents.upload import first_step
from sluice.errors import TemporarilyUnavailable
from sluice.jobs import claims
from sluice.jobs.claims import Canceled, Claim
from sluice.jobs.models import JobStep
from sluice.jobs.outbox import promise
from sluice.kill_points import KillPoint, strike
from sluice.object_store import ObjectNotFound
from sluice.telemetry import logger

PART: Final = 256

log = logger()


def ingest(it: Resources, claim: Claim, lease: Lease) -> None:
    """Read the document, and finish it at once when it is small."""
    turn = Turn()
    version = load_version(it, claim)
    if "extracted" not in claim.checkpoint:
        extraction.extract(it, claim, lease, version)
    if "chunks" not in claim.checkpoint and not _cut(it, claim, lease, version, turn):
        go_on_later(it, claim, first_step(version, "ingest", INGEST, it.jobs, claim.part + 1))
        return
    chunks = claim.checkpoint["chunks"]
    if chunks > PART:
        _hand_out(it, claim, version, chunks)
        return
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.progress(session, claim, "embed", 0, chunks)
    indexing.index_chunks(it, claim, lease, version, 0, chunks)
    _end(it, claim, lease, version, turn)


def embed_part(it: Resources, claim: Claim, lease: Lease) -> None:
    """Index one part of a long document; the last part to end has the document shown."""
    version = load_version(it, claim)
    first = claim.part * PART
    indexing.index_chunks(it, claim, lease, version, first, first + PART)
    strike(KillPoint.AFTER_UPSERT_BEFORE_COMMIT, claim.document_id)
    with tenant_session(it.sessions, claim.tenant_id) as session:
        if claims.finish_part(session, claim):
            _add_step(session, claim, first_step(version, "finalize", EMBED, it.jobs))


def finalize(it: Resources, claim: Claim, lease: Lease, turn: Turn | None = None) -> None:
    """Show a document whose parts are all indexed; what the index has lost of them is put there again, in turns."""
    _end(it, claim, lease, load_version(it, claim), turn or Turn())


def load_version(it: Resources, claim: Claim) -> DocumentVersion:
    """The version that the step is about; `Canceled` when its document was erased meanwhile."""
    with tenant_session(it.sessions, claim.tenant_id) as session:
        version = session.scalars(
            select(DocumentVersion)
            .join(Document, Document.id == DocumentVersion.document_id)
            .where(DocumentVersion.id == claim.version_id, Document.erased_at.is_(None))
        ).one_or_none()
        if version is None:
            raise Canceled("The document was erased.")
        session.expunge(version)
    if version.reread_of is not None:
        # Perhaps because a model was exchanged a moment ago. Vectors that are kept would hide it.
        it.ask_for_models()
    return version


def _cut(it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, turn: Turn) -> bool:
    """Whether all of the text is cut into chunks."""
    try:
        return extraction.cut_into_chunks(it, claim, lease, version, turn)
    except ObjectNotFound:
        log.warning("extract.lost", document_id=str(version.document_id))
        extraction.extract(it, claim, lease, version)
        return extraction.cut_into_chunks(it, claim, lease, version, turn)


def _hand_out(it: Resources, claim: Claim, version: DocumentVersion, chunks: int) -> None:
    parts = range((chunks + PART - 1) // PART)
    with tenant_session(it.sessions, claim.tenant_id) as session:
        steps = [_owned(claim, first_step(version, "embed", EMBED, it.jobs, part)) for part in parts]
        claims.fan_out(session, claim, steps, stage="embed", total=chunks)


def _owned(claim: Claim, step: JobStep) -> JobStep:
    step.job_id = claim.job_id
    step.tenant_id = claim.tenant_id
    return step


def _add_step(session: Session, claim: Claim, step: JobStep) -> None:
    session.add(_owned(claim, step))
    session.flush()
    promise(session, step)


def _end(it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, turn: Turn) -> None:
    """Check that the index is whole, and show the version; a long document whose index is not has it mended first."""
    models = _complete_index(it, claim, lease, version, turn)
    if models is not None:
        _show(it, claim, lease, version, models)
        return
    # How many it has done is a step's own.
    claim.checkpoint.pop("done", None)
    go_on_later(it, claim, first_step(version, "finalize", EMBED, it.jobs, claim.part + 1))


def _show(it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, models: ModelVersions) -> None:
    """Make the version the one that search shows."""
    lease.check()
    strike(KillPoint.AFTER_UPSERT_BEFORE_COMMIT, claim.document_id)
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.finish(session, claim)
        replaced = _activate(session, version)
        if version.id not in replaced:
            indexed.note(session, [version.id], models)
    log.info("document.ready", document_id=str(version.document_id), number=version.number)
    if replaced:
        try:
            it.index.delete_versions(claim.tenant_id, replaced)
        except TemporarilyUnavailable as error:
            # They are invisible already: a hit is shown only if PostgreSQL says its version is active.
            log.warning("document.old_points_left", code=error.code)


def _complete_index(
    it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, turn: Turn
) -> ModelVersions | None:
    """Have every chunk in the index of every alias; by which model each has them, or None when the turn is over.

    The index may have lost points while parts were running, or before the job was tried again; vectors come from the
    cache then. Or EMB serves another model since, which has embedded nothing yet.
    """
    collections = it.dense_collections()
    names = [*(collection.name for collection in collections), it.index.lexical]
    with tenant_session(it.sessions, claim.tenant_id) as session:
        expected = session.scalar(select(func.count()).select_from(Chunk).where(Chunk.version_id == version.id)) or 0

    def counts() -> list[int]:
        return [it.index.count_version(claim.tenant_id, name, version.id) for name in names]

    if set(counts()) != {expected}:
        before = claim.checkpoint.get("mended", {})
        first = before["chunks"] if before.get("collections") == names else 0
        end = _mend(it, claim, lease, version, range(first, expected, PART), turn)
        if it.dense_collections() != collections:
            raise TemporarilyUnavailable("EMB has just changed its model.", code="embedder_unavailable")
        # What an earlier step has put there may be gone again: then from the beginning.
        if end >= expected and first and min(counts()) < expected:
            end = 0
        if end < expected:
            with tenant_session(it.sessions, claim.tenant_id) as session:
                claims.checkpoint(session, claim, mended={"collections": names, "chunks": end})
            return None
    return {collection.alias: collection.model_version for collection in collections}


def _mend(it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, starts: range, turn: Turn) -> int:
    """Put the version's chunks into the index again, until the turn is over; the end of what was put there."""
    if not starts.start:
        with tenant_session(it.sessions, claim.tenant_id) as session:
            claims.progress(session, claim, "embed", 0, starts.stop)
    for start in starts:
        if start > starts.start and turn.is_over():
            return start
        end = min(start + PART, starts.stop)
        indexing.index_chunks(it, claim, lease, version, start, end, done=start - starts.start)
    return starts.stop


def _activate(session: Session, version: DocumentVersion) -> list[UUID]:
    """Make the version visible unless a newer one is already; the versions whose chunks are gone."""
    document = session.scalars(
        select(Document).where(Document.id == version.document_id).with_for_update()
    ).one_or_none()
    if document is None or document.erased_at is not None:
        raise Canceled("The document was erased.")
    rank = precedence.rank_of(session, version.id)
    if precedence.rank_of(session, document.active_version_id) > rank:
        return _supersede(session, [version.id])
    older = session.scalars(precedence.older(document.id, rank)).all()
    replaced = _supersede(session, [each.id for each in older])
    document.active_version_id = version.id
    document.updated_at = datetime.now(UTC)
    session.execute(
        update(DocumentVersion)
        .where(DocumentVersion.id == version.id)
        .values(
            activated_at=func.now(),
            # From here on it is what the source has of these bytes; what it read again is superseded above.
            reread_of=None,
            chunk_count=select(func.count()).select_from(Chunk).where(Chunk.version_id == version.id).scalar_subquery(),
        )
        .execution_options(synchronize_session=False)
    )
    return replaced


def _supersede(session: Session, version_ids: list[UUID]) -> list[UUID]:
    if version_ids:
        session.execute(
            update(DocumentVersion)
            .where(DocumentVersion.id.in_(version_ids), DocumentVersion.superseded_at.is_(None))
            .values(superseded_at=func.now())
            .execution_options(synchronize_session=False)
        )
        delete_chunks(session, version_ids)
    return version_ids
