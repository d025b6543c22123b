"""Points that no shown chunk stands behind, and shown chunks without a point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from sluice.db.session import tenant_session
from sluice.documents import indexed
from sluice.documents.doctor.examination import Look, Patient
from sluice.documents.models import Chunk, Document, DocumentVersion
from sluice.documents.repository import chunk_counts
from sluice.jobs import repository as jobs
from sluice.jobs.models import Job
from sluice.jobs.state import LIVE
from sluice.vector_points import IndexedChunk

_POINTS: Final = 1_000
_CHUNKS: Final = 500


@dataclass(frozen=True)
class OrphanedPoints:
    """Points of one collection whose chunk search would never show."""

    collection: str
    store: str = "qdrant"
    kind: str = "orphaned"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Points in the order of their ids."""
        points, following = patient.index.page(patient.tenant_id, self.collection, after, _POINTS)
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            orphans = self._orphans(patient, session, points)
        return Look([point.point_id for point in orphans], following, partial(self._mend, patient, orphans))

    def _orphans(self, patient: Patient, session: Session, points: Sequence[IndexedChunk]) -> list[IndexedChunk]:
        # What is being worked on is neither wanted nor in the way. Looked at before what is shown: of a job that ends
        # in between, the chunks are seen then.
        latest = jobs.latest_of(session, list({point.version_id for point in points}))
        suspects = [p for p in points if p.version_id not in latest or latest[p.version_id].state not in LIVE]
        shown: set[UUID] = set()
        if self.collection in patient.collections:
            shown = set(session.scalars(_shown().where(Chunk.id.in_({point.chunk_id for point in suspects}))))
        return [point for point in suspects if point.chunk_id not in shown]

    def _mend(self, patient: Patient, orphans: list[IndexedChunk]) -> None:
        of_version: defaultdict[UUID, list[IndexedChunk]] = defaultdict(list)
        for point in orphans:
            of_version[point.version_id].append(point)
        for version_id, points in of_version.items():
            with tenant_session(patient.sessions, patient.tenant_id) as session:
                # Held until the points are gone: whoever retries the job in this moment puts its own there after us.
                latest = jobs.latest_of(session, [version_id])
                if version_id in latest:
                    session.scalars(select(Job.id).where(Job.id == latest[version_id].id).with_for_update()).all()
                    session.expire_all()
                still = self._orphans(patient, session, points)
                if still:
                    patient.index.delete_points(patient.tenant_id, self.collection, [point.point_id for point in still])


@dataclass(frozen=True)
class MissingPoints:
    """Chunks that search would show, if the index had them: in the collection of an alias, the lexical one, or several.

    What is found to be whole is written down, so that nobody takes it for left behind by a model.
    """

    store: str = "qdrant"
    kind: str = "missing"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Chunks by version and place."""
        query = (
            select(Chunk.id, Chunk.version_id, Chunk.ordinal)
            .join(Document, Document.id == Chunk.document_id)
            .where(Document.active_version_id == Chunk.version_id, Document.erased_at.is_(None))
            .order_by(Chunk.version_id, Chunk.ordinal)
            .limit(_CHUNKS)
        )
        if after is not None:
            version, _, ordinal = after.partition(":")
            query = query.where(tuple_(Chunk.version_id, Chunk.ordinal) > (UUID(version), int(ordinal)))
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            rows = session.execute(query).all()
        if not rows:
            return Look()
        missing = self._missing(patient, [row.id for row in rows])
        suspect = set(missing)
        lacking = {row.version_id for row in rows if row.id in suspect}
        self._note_whole(patient, sorted({row.version_id for row in rows} - lacking))
        following = f"{rows[-1].version_id}:{rows[-1].ordinal}" if len(rows) == _CHUNKS else None
        return Look([str(each) for each in missing], following, partial(self._mend, patient, missing))

    def _missing(self, patient: Patient, chunk_ids: list[UUID]) -> list[UUID]:
        held = [patient.index.held(patient.tenant_id, name, chunk_ids) for name in patient.collections]
        suspects = [each for each in chunk_ids if not all(each in one for one in held)]
        if not suspects:
            return []
        # Since the page was read, another version may have taken its place.
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            return list(session.scalars(_shown().where(Chunk.id.in_(suspects)).order_by(Chunk.version_id)))

    def _note_whole(self, patient: Patient, version_ids: list[UUID]) -> None:
        """Write down which of these versions, some of which may go on on another page, each alias has all of."""
        models = {dense.alias: dense.model_version for dense in patient.dense}
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            not_noted = indexed.not_noted(session, version_ids, models)
            chunks = chunk_counts(session, [each for versions in not_noted.values() for each in versions])
        for dense in patient.dense:
            whole = [
                version_id
                for version_id in not_noted.get(dense.alias, ())
                if patient.index.count_version(patient.tenant_id, dense.name, version_id) == chunks.get(version_id)
            ]
            with tenant_session(patient.sessions, patient.tenant_id) as session:
                indexed.note(session, _still_shown(session, whole), {dense.alias: dense.model_version})

    def _mend(self, patient: Patient, missing: list[UUID]) -> None:
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            rows = session.execute(
                select(Chunk, DocumentVersion)
                .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
                .where(Chunk.id.in_(missing))
                .order_by(Chunk.version_id, Chunk.ordinal)
            ).all()
            session.expunge_all()
        for version, some in groupby(rows, key=lambda row: row.DocumentVersion):
            patient.upsert(version, [row.Chunk for row in some])


def _still_shown(session: Session, version_ids: list[UUID]) -> list[UUID]:
    """Those of the versions that search shows, and nobody replaces or erases before this transaction ends."""
    shown = session.scalars(
        select(Document.active_version_id)
        .where(Document.active_version_id.in_(version_ids), Document.erased_at.is_(None))
        .order_by(Document.id)
        .with_for_update(read=True)
    )
    return [version_id for version_id in shown if version_id is not None]


def _shown() -> Select[UUID]:
    """The chunks that search may show."""
    return (
        select(Chunk.id)
        .join(Document, Document.id == Chunk.document_id)
        .where(Document.active_version_id == Chunk.version_id, Document.erased_at.is_(None))
    )
