"""Taking documents in: the bytes into the object store, then one transaction that makes the work exist.

The same bytes live once in a source. Whoever loses a race for them gets the winner's document.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sluice.db.session import Sessions, tenant_session
from sluice.documents import precedence, repository
from sluice.documents.models import Document, DocumentVersion, Upload
from sluice.errors import Conflict, Invalid, NotFound
from sluice.identity import audit
from sluice.ids import new_id
from sluice.jobs import actions
from sluice.jobs import repository as jobs
from sluice.jobs.lanes import lane_of
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import LIVE, JobState
from sluice.object_store import PRESIGNED_SECONDS, ObjectNotFound, ObjectStore, original_key
from sluice.settings import JobSettings

INGEST_JOB: Final = "ingest"
# Each lost race has a winner, so that even twenty uploads of one name come to an end.
_TRIES: Final = 25


class UploadNotFound(NotFound):
    """No such upload, or it is over."""

    code = "upload_not_found"


@dataclass(frozen=True)
class Incoming:
    """What a client wants to add, after its bytes were looked at."""

    source_id: UUID
    name: str
    size: int
    content_hash: str
    mime: str
    external_id: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """The document that an upload led to, and the job that reads it."""

    document_id: UUID
    version_id: UUID
    job_id: UUID
    job_state: JobState
    duplicate: bool


class Intake:
    """The way in for documents of one tenant."""

    def __init__(
        self, sessions: Sessions, store: ObjectStore, settings: JobSettings, tenant_id: UUID, *, by: UUID | None
    ) -> None:
        """`by`: the user who uploads."""
        self._sessions = sessions
        self._store = store
        self._settings = settings
        self._tenant_id = tenant_id
        self._by = by

    def accept(self, incoming: Incoming, body: IO[bytes]) -> Accepted:
        """Store the bytes and queue their reading, or return the document that has them already."""
        for _ in range(_TRIES):
            if known := self._known(incoming):
                return known
            document_id, version_id = self._document_for(incoming), new_id()
            key = original_key(self._tenant_id, document_id, version_id, incoming.content_hash)
            body.seek(0)
            self._store.put(key, body, incoming.mime)
            try:
                with tenant_session(self._sessions, self._tenant_id) as session:
                    return self._register(session, incoming, document_id, version_id, key)
            except IntegrityError:
                # Another upload was faster, with the same bytes or with the same name: look again.
                self._store.delete(key)
        raise Conflict("Others upload to this document all the time: try again in a moment.", code="upload_contended")

    def promise(self, source_id: UUID, upload: Upload) -> tuple[Upload, str]:
        """Let a client put bytes straight into the object store: the promise, and the URL for five minutes."""
        upload.id = new_id()
        upload.object_key = original_key(self._tenant_id, upload.id, upload.id, upload.content_hash)
        upload.expires_at = datetime.now(UTC) + timedelta(seconds=PRESIGNED_SECONDS)
        url = self._store.presigned_put(upload.object_key, upload.size)
        with tenant_session(self._sessions, self._tenant_id) as session:
            repository.get_source(session, source_id)
            session.add(upload)
            session.flush()
            session.expunge(upload)
        return upload, url

    def promised(self, upload_id: UUID) -> Upload:
        """The promise with this id; `UploadNotFound` once it was completed or when it is another tenant's."""
        with tenant_session(self._sessions, self._tenant_id) as session:
            upload = session.scalars(select(Upload).where(Upload.id == upload_id)).one_or_none()
            if upload is None:
                raise UploadNotFound(f"There is no upload {upload_id}, or it was completed already.")
            session.expunge(upload)
            return upload

    def stored_size(self, upload: Upload) -> int:
        """How many bytes the client has put; `Conflict` when none."""
        try:
            return self._store.head(upload.object_key).size
        except ObjectNotFound:
            raise Conflict(
                "Nothing was uploaded to the presigned URL yet: PUT the bytes there first.", code="upload_missing"
            ) from None

    def complete(self, upload: Upload, incoming: Incoming, body: IO[bytes]) -> Accepted:
        """Take in what the client has put, as it was read and checked: nobody else has a URL to where it is kept."""
        accepted = self.accept(incoming, body)
        self._discard(upload)
        return accepted

    def refuse(self, upload: Upload, reason: str) -> Invalid:
        """Remove what was put; the error to answer with."""
        self._discard(upload)
        return Invalid(f"{reason} What was uploaded is removed; begin again.", code="upload_mismatch")

    def _discard(self, upload: Upload) -> None:
        self._store.delete(upload.object_key)
        with tenant_session(self._sessions, self._tenant_id) as session:
            found = session.scalars(select(Upload).where(Upload.id == upload.id)).one_or_none()
            if found is not None:
                session.delete(found)

    def _known(self, incoming: Incoming) -> Accepted | None:
        with tenant_session(self._sessions, self._tenant_id) as session:
            repository.get_source(session, incoming.source_id)
            version = _version_with(session, incoming)
            if version is None:
                return None
            stopped = _withdraw_newer(session, version)
            known = self._join(session, version) if version.superseded_at is None else None
            if known is not None and not known.duplicate:
                audit.record(session, "job.retry", "job", known.job_id, by=self._by, because="uploaded again")
            for job_id in stopped:
                audit.record(session, "job.cancel", "job", job_id, by=self._by, because="older content uploaded again")
            return known

    def _document_for(self, incoming: Incoming) -> UUID:
        with tenant_session(self._sessions, self._tenant_id) as session:
            document = _document_named(session, incoming)
            return document.id if document else new_id()

    def _register(
        self, session: Session, incoming: Incoming, document_id: UUID, version_id: UUID, key: str
    ) -> Accepted:
        document = session.scalars(
            select(Document).where(Document.id == document_id, Document.erased_at.is_(None)).with_for_update()
        ).one_or_none()
        if document is None:
            document = Document(id=document_id, source_id=incoming.source_id, external_id=_external_id(incoming))
            session.add(document)
        document.name = incoming.name
        document.tags = list(incoming.tags)
        session.flush()
        newest = session.scalar(
            select(func.max(DocumentVersion.number)).where(DocumentVersion.document_id == document_id)
        )
        version = DocumentVersion(
            id=version_id,
            document_id=document_id,
            source_id=incoming.source_id,
            number=(newest or 0) + 1,
            content_hash=incoming.content_hash,
            size=incoming.size,
            mime=incoming.mime,
            object_key=key,
        )
        session.add(version)
        session.flush()
        job = Job(
            kind=INGEST_JOB,
            document_id=document_id,
            version_id=version_id,
            source_id=incoming.source_id,
            state=JobState.QUEUED,
        )
        queue = lane_of(incoming.size, self._settings)
        job = jobs.submit(session, job, first_step(version, "ingest", queue, self._settings))
        return Accepted(document_id, version_id, job.id, JobState.QUEUED, duplicate=False)

    def _join(self, session: Session, version: DocumentVersion) -> Accepted:
        job = jobs.latest_of(session, [version.id])[version.id]
        if job.state in (JobState.FAILED, JobState.CANCELED):
            # Whoever uploads a failed document again wants it tried again; of several, the first one says so.
            with suppress(Conflict):
                job = actions.retry(session, job.id, self._settings, by=self._by)
                return Accepted(version.document_id, version.id, job.id, job.state, duplicate=False)
            job = jobs.get(session, job.id)
        return Accepted(version.document_id, version.id, job.id, job.state, duplicate=True)


def first_step(version: DocumentVersion, step: str, queue: str, settings: JobSettings, part: int = 0) -> JobStep:
    """A step of this version's work, with the key that makes it the only one of its kind."""
    return JobStep(
        step=step,
        part=part,
        queue=queue,
        max_attempts=settings.max_attempts,
        idempotency_key=jobs.idempotency_key(
            source_id=version.source_id,
            content_hash=version.content_hash,
            version_id=version.id,
            step=step,
            part=part,
        ),
    )


def _withdraw_newer(session: Session, version: DocumentVersion) -> list[UUID]:
    """Withdraw what was uploaded after this version and is not shown yet; the jobs that were stopped for it.

    Uploading older content again means: this is what the document shall be. Whether it then is, the version tells.
    """
    rank = precedence.rank_of(session, version.id)
    # Another reading of these bytes is not withdrawn: it leads to the same document.
    newer = [
        each
        for each in session.scalars(
            precedence.newer(version.document_id, rank).where(DocumentVersion.superseded_at.is_(None))
        )
        if each.object_key != version.object_key
    ]
    stopped: list[UUID] = []
    if not newer:
        return stopped
    for job in jobs.latest_of(session, [each.id for each in newer]).values():
        if job.state in LIVE:
            # It may end in this moment; the version itself then tells.
            with suppress(Conflict):
                actions.cancel(session, job.id)
                stopped.append(job.id)
    for each in newer:
        each.superseded_at = each.superseded_at or func.now()
    session.execute(select(Document.id).where(Document.id == version.document_id).with_for_update())
    session.refresh(version)
    return stopped


def _external_id(incoming: Incoming) -> str:
    return incoming.external_id or incoming.name


def _version_with(session: Session, incoming: Incoming) -> DocumentVersion | None:
    return session.scalars(
        select(DocumentVersion).where(
            DocumentVersion.source_id == incoming.source_id,
            DocumentVersion.content_hash == incoming.content_hash,
            DocumentVersion.superseded_at.is_(None),
            DocumentVersion.reread_of.is_(None),
        )
    ).one_or_none()


def _document_named(session: Session, incoming: Incoming) -> Document | None:
    return session.scalars(
        select(Document).where(
            Document.source_id == incoming.source_id,
            Document.external_id == _external_id(incoming),
            Document.erased_at.is_(None),
        )
    ).one_or_none()
