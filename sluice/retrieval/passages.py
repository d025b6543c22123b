"""Passages, read from PostgreSQL: it decides what may be shown, whatever the index still holds."""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, case, func, literal_column, select
from sqlalchemy.orm import Session

from sluice.documents.models import CachedEmbedding, Chunk, Document, DocumentVersion
from sluice.retrieval import lexical
from sluice.vector_points import PassageFilter

# Divide by the logarithm of the length, and by the distance of the words (PostgreSQL manual, 12.3.3).
_RANKING = 1 | 4


@dataclass(frozen=True)
class Passage:
    """A chunk that may be shown, and where it stands."""

    chunk_id: UUID
    document_id: UUID
    document_name: str
    source_id: UUID
    version_id: UUID
    version: int
    mime: str
    lang: str
    text: str
    text_hash: bytes
    page: int | None
    last_page: int | None
    heading_path: list[str]
    # A list for each line: start, end, page, x0, y0, x1, y1.
    spans: list[list[float]]
    score: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

    def boxes(self, start: int = 0, end: int | None = None) -> list[list[float]]:
        """Where these characters of the text stand: [[page, x0, y0, x1, y1], ...]."""
        stop = len(self.text) if end is None else end
        return [[int(page), *box] for first, last, page, *box in self.spans if first < stop and last > start]


def read(session: Session, chunk_ids: Sequence[UUID]) -> dict[UUID, Passage]:
    """Those of the chunks that belong to the active version of a document that was not erased."""
    rows = session.execute(_visible().where(Chunk.id.in_(chunk_ids))).all()
    return {row.Chunk.id: _passage(row) for row in rows}


def full_text(session: Session, question: str, within: PassageFilter, limit: int) -> list[Passage]:
    """The passages that share words with the question, by PostgreSQL's own ranking: for when the index is away."""
    words = " | ".join(lexical.words_of(question))
    if not words:
        return []
    wanted = case(
        (Chunk.lang == "en", func.to_tsquery(literal_column("'english'::regconfig"), words)),
        (Chunk.lang == "ru", func.to_tsquery(literal_column("'russian'::regconfig"), words)),
        else_=func.to_tsquery(literal_column("'simple'::regconfig"), words),
    )
    rank = func.ts_rank(Chunk.words, wanted, _RANKING).label("rank")
    query = _narrowed(_visible(rank), within).where(Chunk.words.op("@@")(wanted)).order_by(rank.desc(), Chunk.id)
    return [_passage(row, score=row.rank, leg="full_text") for row in session.execute(query.limit(limit)).all()]


def vectors(session: Session, passages: Sequence[Passage], model_version: str) -> dict[UUID, Sequence[float]]:
    """The cached vectors of these passages."""
    rows = session.execute(
        select(CachedEmbedding.text_hash, CachedEmbedding.vector).where(
            CachedEmbedding.text_hash.in_([passage.text_hash for passage in passages]),
            CachedEmbedding.model_version == model_version,
        )
    ).all()
    of_text = {text_hash: array.array("f", vector) for text_hash, vector in rows}
    return {passage.chunk_id: of_text[passage.text_hash] for passage in passages if passage.text_hash in of_text}


def _visible(*more: Any) -> Select[Any]:
    return (
        select(Chunk, Document, DocumentVersion, *more)
        .join(Document, Document.id == Chunk.document_id)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .where(Document.active_version_id == Chunk.version_id, Document.erased_at.is_(None))
    )


def _narrowed(query: Select[Any], within: PassageFilter) -> Select[Any]:
    if within.source_ids:
        query = query.where(Document.source_id.in_(within.source_ids))
    if within.tags:
        query = query.where(Document.tags.overlap(list(within.tags)))
    if within.langs:
        query = query.where(Chunk.lang.in_(within.langs))
    if within.mimes:
        query = query.where(DocumentVersion.mime.in_(within.mimes))
    return query


def _passage(row: Row[Any], score: float = 0.0, leg: str | None = None) -> Passage:
    chunk: Chunk = row.Chunk
    return Passage(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        document_name=row.Document.name,
        source_id=row.Document.source_id,
        version_id=chunk.version_id,
        version=row.DocumentVersion.number,
        mime=row.DocumentVersion.mime,
        lang=chunk.lang,
        text=chunk.text,
        text_hash=chunk.text_hash,
        page=chunk.page,
        last_page=chunk.last_page,
        heading_path=chunk.heading_path,
        spans=chunk.spans,
        score=score,
        scores={leg: score} if leg else {},
    )
