"""Sources, documents and their versions, as the rest of the project asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, delete, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from sluice.documents.models import CachedEmbedding, Chunk, Document, DocumentVersion, IndexedVersion, Source
from sluice.errors import Conflict, NotFound
from sluice.jobs import repository as jobs
from sluice.jobs.models import Job


class SourceNotFound(NotFound):
    """No such source."""

    code = "source_not_found"


class DocumentNotFound(NotFound):
    """No such document."""

    code = "document_not_found"


@dataclass(frozen=True)
class DocumentView:
    """A document with its newest version and that version's job: what people want to see of it."""

    document: Document
    version: DocumentVersion
    job: Job | None

    @property
    def searchable(self) -> bool:
        """Whether some version of it, perhaps an older one, can be found."""
        return self.document.active_version_id is not None


def create_source(session: Session, name: str) -> Source:
    """A new source of this name; `Conflict` when there is one already."""
    source = Source(name=name)
    try:
        with session.begin_nested():
            session.add(source)
    except IntegrityError:
        raise Conflict(f"There is already a source named {name!r}.", code="source_exists") from None
    return source


def get_source(session: Session, source_id: UUID) -> Source:
    """The source; `SourceNotFound` also for another tenant's."""
    source = session.scalars(select(Source).where(Source.id == source_id)).one_or_none()
    if source is None:
        raise SourceNotFound(f"There is no source {source_id}.")
    return source


def delete_source(session: Session, source_id: UUID) -> None:
    """Delete the source; `Conflict` while it has documents, those that are half erased included."""
    # Locked, so that no document comes into it between the look and the deletion.
    source = session.scalars(select(Source).where(Source.id == source_id).with_for_update()).one_or_none()
    if source is None:
        raise SourceNotFound(f"There is no source {source_id}.")
    number = session.scalar(select(func.count()).select_from(Document).where(Document.source_id == source_id)) or 0
    if number:
        raise Conflict(
            f"The source {source.name!r} still has {number} documents, erased ones that are not gone yet included. "
            "Erase them first.",
            code="source_not_empty",
            documents=number,
        )
    session.delete(source)


def sources(session: Session, *, after: tuple[datetime, UUID] | None, limit: int) -> Sequence[Source]:
    """Up to `limit` sources, oldest first."""
    query = select(Source).order_by(Source.created_at, Source.id).limit(limit)
    if after is not None:
        query = query.where(tuple_(Source.created_at, Source.id) > after)
    return session.scalars(query).all()


def document_counts(session: Session, source_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many documents each of these sources has."""
    counted = session.execute(
        select(Document.source_id, func.count().label("number"))
        .where(Document.source_id.in_(source_ids), Document.erased_at.is_(None))
        .group_by(Document.source_id)
    ).all()
    return {row.source_id: row.number for row in counted}


def get_document(session: Session, document_id: UUID) -> Document:
    """The document; `DocumentNotFound` also when it was erased or is another tenant's."""
    document = session.scalars(
        select(Document).where(Document.id == document_id, Document.erased_at.is_(None))
    ).one_or_none()
    if document is None:
        raise DocumentNotFound(f"There is no document {document_id}.")
    return document


def view(session: Session, document_id: UUID) -> DocumentView:
    """The document with its newest version and job."""
    return _views(session, [get_document(session, document_id)])[0]


def page(
    session: Session, *, source_id: UUID | None, before: tuple[datetime, UUID] | None, limit: int
) -> list[DocumentView]:
    """Up to `limit` documents, newest first."""
    query = (
        select(Document)
        .where(Document.erased_at.is_(None))
        .order_by(Document.created_at.desc(), Document.id.desc())
        .limit(limit)
    )
    if source_id is not None:
        query = query.where(Document.source_id == source_id)
    if before is not None:
        query = query.where(tuple_(Document.created_at, Document.id) < before)
    return _views(session, session.scalars(query).all())


def versions_of(session: Session, document_id: UUID) -> Sequence[DocumentVersion]:
    """All versions of a document, oldest first."""
    return session.scalars(
        select(DocumentVersion).where(DocumentVersion.document_id == document_id).order_by(DocumentVersion.number)
    ).all()


def readable_version(session: Session, document_id: UUID) -> DocumentVersion:
    """The version that search shows, or the newest one while none is ready."""
    document = get_document(session, document_id)
    versions = versions_of(session, document_id)
    active = [version for version in versions if version.id == document.active_version_id]
    return (active or list(versions))[-1]


def chunks_between(session: Session, version_id: UUID, first: int, end: int) -> Sequence[Chunk]:
    """The chunks of a version with ordinals from `first` up to, not including, `end`."""
    return session.scalars(
        select(Chunk)
        .where(Chunk.version_id == version_id, Chunk.ordinal >= first, Chunk.ordinal < end)
        .order_by(Chunk.ordinal)
    ).all()


def chunk_counts(session: Session, version_ids: Sequence[UUID]) -> dict[UUID, int]:
    """How many chunks each of these versions has; those without any are left out."""
    counted = session.execute(
        select(Chunk.version_id, func.count().label("number"))
        .where(Chunk.version_id.in_(version_ids))
        .group_by(Chunk.version_id)
    ).all()
    return {row.version_id: row.number for row in counted}


def delete_chunks(session: Session, version_ids: Sequence[UUID]) -> None:
    """Remove the chunks of these versions, what is known of their index, and cached vectors of texts of no other.

    A vector says something about its text, so it must not outlive it.
    """
    another = aliased(Chunk)
    session.execute(
        delete(CachedEmbedding)
        .where(
            CachedEmbedding.text_hash.in_(select(Chunk.text_hash).where(Chunk.version_id.in_(version_ids))),
            ~exists().where(another.text_hash == CachedEmbedding.text_hash, another.version_id.not_in(version_ids)),
        )
        .execution_options(synchronize_session=False)
    )
    for table in (IndexedVersion, Chunk):
        session.execute(
            delete(table).where(table.version_id.in_(version_ids)).execution_options(synchronize_session=False)
        )


def _views(session: Session, documents: Sequence[Document]) -> list[DocumentView]:
    ids = [document.id for document in documents]
    newest = session.scalars(
        select(DocumentVersion)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(DocumentVersion.document_id.in_(ids))
        .ext(distinct_on(DocumentVersion.document_id))
        .order_by(
            DocumentVersion.document_id,
            # A version that was withdrawn or replaced is what the document was, not what it is.
            DocumentVersion.superseded_at.is_not(None),
            # A document that is found stays what it is while it is read again, and when that fails.
            and_(DocumentVersion.reread_of.is_not(None), Document.active_version_id.is_not(None)),
            DocumentVersion.number.desc(),
        )
    )
    version_of = {version.document_id: version for version in newest}
    job_of = jobs.latest_of(session, [version.id for version in version_of.values()])
    versions = [version_of[document.id] for document in documents]
    return [
        DocumentView(document, version, job_of.get(version.id))
        for document, version in zip(documents, versions, strict=True)
    ]
