"""Rows that do not fit one another: work that was begun and never ended, and what it left."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import Exists, Select, and_, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from sluice.db.session import tenant_session
from sluice.documents.doctor.examination import Look, Patient
from sluice.documents.erase import erase
from sluice.documents.models import Chunk, Document, DocumentVersion, Upload
from sluice.documents.repository import DocumentNotFound, delete_chunks
from sluice.documents.reread import VersionNotFound, reread
from sluice.errors import TemporarilyUnavailable
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import LIVE

_ROWS: Final = 200


@dataclass(frozen=True)
class ExpiredUploads:
    """Uploads that were announced and never completed. Mended: forgotten, with whatever was put there."""

    store: str = "postgres"
    kind: str = "expired_uploads"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Uploads in the order of their ids."""
        grace = timedelta(seconds=patient.settings.doctor_grace_seconds)
        ids, following = _ids(
            patient, select(Upload.id).where(Upload.expires_at < func.now() - grace), Upload.id, after
        )
        return Look([str(each) for each in ids], following, partial(self._mend, patient, ids))

    def _mend(self, patient: Patient, ids: Sequence[UUID]) -> None:
        for upload_id in ids:
            with tenant_session(patient.sessions, patient.tenant_id) as session:
                query = select(Upload).where(Upload.id == upload_id).with_for_update()
                upload = session.scalars(query).one_or_none()
                if upload is not None:
                    patient.store.delete(upload.object_key)
                    session.delete(upload)


@dataclass(frozen=True)
class HalfErased:
    """Documents whose erasing was begun and not finished, because a store was away. Mended: erased."""

    store: str = "postgres"
    kind: str = "half_erased"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Documents in the order of their ids."""
        grace = timedelta(seconds=patient.settings.doctor_grace_seconds)
        begun = select(Document.id).where(Document.erased_at < func.now() - grace)
        ids, following = _ids(patient, begun, Document.id, after)
        return Look([str(each) for each in ids], following, partial(self._mend, patient, ids))

    def _mend(self, patient: Patient, ids: Sequence[UUID]) -> None:
        for document_id in ids:
            # Finished by somebody else meanwhile, or not to be finished yet: the second look counts it.
            with suppress(DocumentNotFound, TemporarilyUnavailable):
                erase(patient.sessions, patient.store, patient.index, patient.tenant_id, document_id)


@dataclass(frozen=True)
class LeftOverChunks:
    """Chunks of versions that were replaced. Mended: deleted."""

    store: str = "postgres"
    kind: str = "left_over_chunks"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Versions in the order of their ids."""
        replaced = select(DocumentVersion.id).where(
            DocumentVersion.superseded_at.is_not(None),
            exists().where(Chunk.version_id == DocumentVersion.id),
            ~exists().where(Document.active_version_id == DocumentVersion.id),
            ~_has_live_job(DocumentVersion.id),
        )
        ids, following = _ids(patient, replaced, DocumentVersion.id, after)
        return Look([str(each) for each in ids], following, partial(self._mend, patient, ids))

    def _mend(self, patient: Patient, ids: Sequence[UUID]) -> None:
        if ids:
            with tenant_session(patient.sessions, patient.tenant_id) as session:
                delete_chunks(session, ids)


@dataclass(frozen=True)
class Incomplete:
    """Documents that are shown with no chunks, or with another number of them than was found. Mended: read again."""

    store: str = "postgres"
    kind: str = "incomplete"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Documents in the order of their ids."""
        number = select(func.count()).where(Chunk.version_id == DocumentVersion.id).scalar_subquery()
        another = aliased(DocumentVersion)
        being_read = exists().where(another.document_id == Document.id, _has_live_job(another.id))
        wrong = (
            select(Document.id)
            .join(DocumentVersion, DocumentVersion.id == Document.active_version_id)
            .where(
                Document.erased_at.is_(None),
                or_(number == 0, number.is_distinct_from(DocumentVersion.chunk_count)),
                ~being_read,
            )
        )
        ids, following = _ids(patient, wrong, Document.id, after)
        return Look([str(each) for each in ids], following, partial(self._mend, patient, ids))

    def _mend(self, patient: Patient, ids: Sequence[UUID]) -> None:
        for document_id in ids:
            with tenant_session(patient.sessions, patient.tenant_id) as session:
                shown = session.scalar(select(Document.active_version_id).where(Document.id == document_id))
                if shown is not None:
                    with suppress(VersionNotFound):
                        reread(session, shown, settings=patient.settings)


@dataclass(frozen=True)
class StuckJobs:
    """Jobs that nobody works on and that no step would bring further. For a person to look at."""

    store: str = "postgres"
    kind: str = "stuck_jobs"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Jobs in the order of their ids."""
        stuck = select(Job.id).where(
            Job.state.in_(LIVE), ~exists().where(and_(JobStep.job_id == Job.id, JobStep.state.in_(LIVE)))
        )
        ids, following = _ids(patient, stuck, Job.id, after)
        return Look([str(each) for each in ids], following)


def _has_live_job(version_id: InstrumentedAttribute[UUID]) -> Exists:
    return exists().where(Job.version_id == version_id, Job.state.in_(LIVE))


def _ids(
    patient: Patient, query: Select[UUID], column: InstrumentedAttribute[UUID], after: str | None
) -> tuple[Sequence[UUID], str | None]:
    """A page of ids, and after which of them the next page begins."""
    if after is not None:
        query = query.where(column > UUID(after))
    with tenant_session(patient.sessions, patient.tenant_id) as session:
        ids = session.scalars(query.order_by(column).limit(_ROWS)).all()
    return ids, str(ids[-1]) if len(ids) == _ROWS else None
