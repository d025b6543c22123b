"""By which model each document is in the index of each embedding alias, and which documents were left behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import ColumnElement, exists, false, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from sluice.documents.models import Document, IndexedVersion, Source

# Which version of a model makes the vectors of each alias now.
ModelVersions = Mapping[str, str]


@dataclass(frozen=True)
class LeftBehind:
    """The documents of a source that search shows, and how many of them an alias does not find by meaning."""

    source_id: UUID
    source_name: str
    documents: int
    outdated: int
    """Left behind under one alias at least."""
    by_alias: Mapping[str, int] = field(default_factory=dict)


def note(session: Session, version_ids: Sequence[UUID], models: ModelVersions) -> None:
    """Write down that every chunk of these versions is in the index of each alias, by this version of its model."""
    rows = [
        {"version_id": version_id, "alias": alias, "model_version": model_version}
        for version_id in version_ids
        for alias, model_version in models.items()
    ]
    if not rows:
        return
    adding = insert(IndexedVersion)
    session.execute(
        adding.on_conflict_do_update(
            index_elements=["version_id", "alias"],
            set_={"model_version": adding.excluded.model_version, "indexed_at": func.now()},
        ),
        rows,
    )


def not_noted(session: Session, version_ids: Sequence[UUID], models: ModelVersions) -> dict[str, list[UUID]]:
    """Those of the versions of which it is not written down, by alias."""
    rows = session.execute(
        select(IndexedVersion.version_id, IndexedVersion.alias, IndexedVersion.model_version).where(
            IndexedVersion.version_id.in_(version_ids)
        )
    ).all()
    noted = {(row.version_id, row.alias, row.model_version) for row in rows}
    missing: defaultdict[str, list[UUID]] = defaultdict(list)
    for alias, model_version in models.items():
        missing[alias] = [each for each in version_ids if (each, alias, model_version) not in noted]
    return {alias: versions for alias, versions in missing.items() if versions}


def left_behind(session: Session, models: ModelVersions) -> list[LeftBehind]:
    """Every source of the session's tenant that has documents, by name."""
    behind = {alias: _behind(Document.active_version_id, alias, version) for alias, version in models.items()}
    counts = [func.count().filter(condition) for condition in behind.values()]
    rows = session.execute(
        select(Source.id, Source.name, func.count(), func.count().filter(or_(false(), *behind.values())), *counts)
        .join(Document, Document.source_id == Source.id)
        .where(Document.active_version_id.is_not(None), Document.erased_at.is_(None))
        .group_by(Source.id, Source.name)
        .order_by(Source.name, Source.id)
    ).all()
    return [
        LeftBehind(source_id, name, documents, outdated, dict(zip(behind, each, strict=True)))
        for source_id, name, documents, outdated, *each in rows
    ]


def _behind(version_id: InstrumentedAttribute[UUID | None], alias: str, model_version: str) -> ColumnElement[bool]:
    return ~exists().where(
        IndexedVersion.version_id == version_id,
        IndexedVersion.alias == alias,
        IndexedVersion.model_version == model_version,
    )
