"""Objects that no row asks for, and originals that are gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sluice.db.session import tenant_session
from sluice.documents.doctor.examination import Look, Patient
from sluice.documents.models import Document, DocumentVersion, Upload
from sluice.object_store import ObjectNotFound, extract_key, tenant_prefix

_VERSIONS: Final = 200
_KEY_PARTS: Final = 5


@dataclass(frozen=True)
class OrphanedObjects:
    """Objects that are no version's original, nothing extracted that is still needed, and no announced upload."""

    store: str = "s3"
    kind: str = "orphaned"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Objects in the order of their keys."""
        objects, following = patient.store.page(tenant_prefix(patient.tenant_id), after)
        # Bytes are stored before the row that asks for them.
        old = datetime.now(UTC) - timedelta(seconds=patient.settings.doctor_grace_seconds)
        suspects = [each.key for each in objects if each.modified_at <= old]
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            wanted = _wanted(session, patient, suspects)
        orphans = [key for key in suspects if key not in wanted]
        return Look(orphans, following, partial(_delete, patient, orphans))


@dataclass(frozen=True)
class LostOriginals:
    """Documents whose file is gone: what was found in it is still shown, but it can never be read again.

    Only of versions that a person can still get at; nothing but a new upload mends it.
    """

    store: str = "s3"
    kind: str = "missing"

    def look(self, patient: Patient, after: str | None) -> Look:
        """Versions in the order of their ids; the documents that have lost theirs."""
        query = (
            select(DocumentVersion.id, DocumentVersion.document_id, DocumentVersion.object_key)
            .join(Document, Document.id == DocumentVersion.document_id)
            .where(
                DocumentVersion.superseded_at.is_(None),
                DocumentVersion.reread_of.is_(None),
                Document.erased_at.is_(None),
            )
            .order_by(DocumentVersion.id)
            .limit(_VERSIONS)
        )
        if after is not None:
            query = query.where(DocumentVersion.id > UUID(after))
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            rows = session.execute(query).all()
        lost = [row.document_id for row in rows if not _is_there(patient, row.object_key)]
        with tenant_session(patient.sessions, patient.tenant_id) as session:
            # Meanwhile it may have been erased.
            kept = session.scalars(select(Document.id).where(Document.id.in_(lost), Document.erased_at.is_(None))).all()
        return Look([str(each) for each in kept], str(rows[-1].id) if len(rows) == _VERSIONS else None)


def _wanted(session: Session, patient: Patient, keys: list[str]) -> set[str]:
    version_of = {key: found for key in keys if (found := _version_in(key)) is not None}
    versions = session.execute(
        select(
            DocumentVersion.id, DocumentVersion.document_id, DocumentVersion.object_key, DocumentVersion.superseded_at
        )
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(DocumentVersion.id.in_(set(version_of.values())), Document.erased_at.is_(None))
    ).all()
    wanted = {row.object_key for row in versions}
    # What was extracted spares the next attempt of a version that failed the reading; of an old one it is no use.
    wanted |= {extract_key(patient.tenant_id, row.document_id, row.id) for row in versions if not row.superseded_at}
    grace = timedelta(seconds=patient.settings.doctor_grace_seconds)
    announced = session.scalars(
        select(Upload.object_key).where(Upload.object_key.in_(keys), Upload.expires_at > func.now() - grace)
    )
    return wanted | set(announced)


def _version_in(key: str) -> UUID | None:
    """The version that a key names: tenant/<tenant>/<document>/<version>/<name>."""
    parts = key.split("/")
    try:
        return UUID(parts[3]) if len(parts) == _KEY_PARTS else None
    except ValueError:
        return None


def _delete(patient: Patient, keys: list[str]) -> None:
    for key in keys:
        patient.store.delete(key)


def _is_there(patient: Patient, key: str) -> bool:
    try:
        patient.store.head(key)
    except ObjectNotFound:
        return False
    return True
