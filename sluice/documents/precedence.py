"""Which of a document's versions counts: the newest upload, and of what reads its bytes the newest reading.

A version that reads older bytes again has a newer number than an upload that is still being read, and must not win
over it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, select, tuple_
from sqlalchemy.orm import Session, aliased

from sluice.documents.models import DocumentVersion

Rank = tuple[int, int]


def rank_of(session: Session, version_id: UUID | None) -> Rank:
    """The number of the upload whose bytes the version holds, and the version's own; (0, 0) when there is none."""
    row = session.execute(
        select(_uploaded_as().label("uploaded"), DocumentVersion.number).where(DocumentVersion.id == version_id)
    ).one_or_none()
    return (row.uploaded, row.number) if row else (0, 0)


def newer(document_id: UUID, than: Rank) -> Select[DocumentVersion]:
    """The versions of the document that win over one of this rank."""
    return select(DocumentVersion).where(DocumentVersion.document_id == document_id, _rank() > than)


def older(document_id: UUID, than: Rank) -> Select[DocumentVersion]:
    """The versions of the document over which one of this rank wins."""
    return select(DocumentVersion).where(DocumentVersion.document_id == document_id, _rank() < than)


def _rank() -> ColumnElement[Any]:
    return tuple_(_uploaded_as(), DocumentVersion.number)


def _uploaded_as() -> ScalarSelect[int]:
    first = aliased(DocumentVersion)
    return (
        select(func.min(first.number))
        .where(first.document_id == DocumentVersion.document_id, first.object_key == DocumentVersion.object_key)
        .correlate(DocumentVersion)
        .scalar_subquery()
    )
