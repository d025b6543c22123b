"""Reading a document's bytes again: with another model, chunker or parser, while search goes on showing what it has."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sluice.documents.models import Document, DocumentVersion
from sluice.documents.reading import ReadingOptions
from sluice.documents.upload import first_step
from sluice.errors import NotFound
from sluice.ids import new_id
from sluice.jobs import repository as jobs
from sluice.jobs.lanes import MAINTENANCE, lane_of
from sluice.jobs.models import Job
from sluice.jobs.state import LIVE, JobState
from sluice.settings import JobSettings

REINDEX_JOB: Final = "reindex"


class VersionNotFound(NotFound):
    """No such version, or its document was erased."""

    code = "version_not_found"


def reread(
    session: Session,
    version_id: UUID,
    *,
    kind: str = REINDEX_JOB,
    options: dict[str, Any] | None = None,
    settings: JobSettings,
    parent_id: UUID | None = None,
) -> Job:
    """Queue another reading of this version's bytes, and return its job; the one that does so already, if there is one.

    The new reading is a version of its own, shown once it is ready. A reindex takes the maintenance lane; anything
    else is taken to be waited for by a person. Raises `VersionNotFound`, or `Invalid` for options that make no sense.
    """
    version = _locked(session, version_id)
    wanted = ReadingOptions.of(options, version.mime).as_stored()
    live = _live_rereads(session, version)
    for job in live:
        if job.options == wanted:
            return job
    newest = session.scalar(
        select(func.max(DocumentVersion.number)).where(DocumentVersion.document_id == version.document_id)
    )
    again = DocumentVersion(
        id=new_id(),
        document_id=version.document_id,
        source_id=version.source_id,
        number=(newest or 0) + 1,
        content_hash=version.content_hash,
        size=version.size,
        mime=version.mime,
        object_key=version.object_key,
        reread_of=version.id,
    )
    session.add(again)
    session.flush()
    job = Job(
        kind=kind,
        document_id=version.document_id,
        version_id=again.id,
        source_id=version.source_id,
        parent_id=parent_id,
        options=wanted,
        state=JobState.QUEUED,
    )
    queue = MAINTENANCE if kind == REINDEX_JOB else lane_of(version.size, settings)
    return jobs.submit(session, job, first_step(again, "ingest", queue, settings))


def _locked(session: Session, version_id: UUID) -> DocumentVersion:
    """The version, its document held, so that no other upload or reading takes the next number."""
    document_id = session.scalar(select(DocumentVersion.document_id).where(DocumentVersion.id == version_id))
    document = session.scalars(
        select(Document).where(Document.id == document_id, Document.erased_at.is_(None)).with_for_update()
    ).one_or_none()
    version = session.scalars(
        select(DocumentVersion).where(DocumentVersion.id == version_id).execution_options(populate_existing=True)
    ).one_or_none()
    if document is None or version is None:
        raise VersionNotFound(f"There is no version {version_id}, or its document was erased.")
    return version


def _live_rereads(session: Session, version: DocumentVersion) -> list[Job]:
    """The jobs that are reading the version's bytes again at this moment, the newest first."""
    return list(
        session.scalars(
            select(Job)
            .join(DocumentVersion, DocumentVersion.id == Job.version_id)
            .where(
                DocumentVersion.document_id == version.document_id,
                DocumentVersion.object_key == version.object_key,
                DocumentVersion.reread_of.is_not(None),
                DocumentVersion.superseded_at.is_(None),
                Job.state.in_(LIVE),
                Job.cancel_requested_at.is_(None),
            )
            .order_by(DocumentVersion.number.desc())
        )
    )
