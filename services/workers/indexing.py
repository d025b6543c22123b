"""The second half of ingest: from chunks in PostgreSQL to points in the vector index."""

from __future__ import annotations

import array
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from services.workers.lease import Lease
from services.workers.resources import Resources
from sluice.db.session import tenant_session
from sluice.documents.models import CachedEmbedding, Chunk, Document, DocumentVersion
from sluice.documents.repository import chunks_between
from sluice.errors import TemporarilyUnavailable
from sluice.jobs import claims
from sluice.jobs.claims import Canceled, Claim
from sluice.kill_points import KillPoint, strike
from sluice.retrieval import lexical
from sluice.vector_points import ChunkPoint, DenseCollection

# Chunks that are in memory at a time, with their vectors.
_WINDOW: Final = 256


@dataclass(frozen=True)
class _Described:
    """What the payload of every point of a version says."""

    source_id: UUID
    tags: list[str]
    updated_at: datetime


def index_chunks(
    it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, first: int, end: int, *, done: int = 0
) -> None:
    """Embed and upsert the version's chunks from `first` up to `end`; every vector is computed once and kept.

    `done`: how many this step has indexed before.
    """
    for start in range(first, end, _WINDOW):
        with tenant_session(it.sessions, claim.tenant_id) as session:
            chunks = chunks_between(session, version.id, start, min(start + _WINDOW, end))
            session.expunge_all()
        for batch in by_tokens(it, chunks):
            lease.check()
            upsert_chunks(it, claim, version, batch)
            done += len(batch)
            with tenant_session(it.sessions, claim.tenant_id) as session:
                claims.count_done(session, claim, done)
            strike(KillPoint.IN_EMBED_PART, claim.document_id)


def upsert_chunks(it: Resources, claim: Claim, version: DocumentVersion, chunks: Sequence[Chunk]) -> None:
    """Put these chunks of the version into the index of every alias; vectors that are not kept yet are computed."""
    default, *further = it.dense_collections()
    with tenant_session(it.sessions, claim.tenant_id) as session:
        described = _describe(session, version)
    vectors = {collection: _embed(it, claim, collection, chunks) for collection in (default, *further)}
    strike(KillPoint.AFTER_EMBED, claim.document_id)
    points = [_point(version, described, chunk, vectors[default][chunk.text_hash]) for chunk in chunks]
    it.index.upsert(claim.tenant_id, default, points)
    for collection in further:
        dense = [
            replace(point, dense=vectors[collection][chunk.text_hash])
            for point, chunk in zip(points, chunks, strict=True)
        ]
        it.index.upsert_dense(claim.tenant_id, collection, dense)


def by_tokens(it: Resources, chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """The chunks in batches of what EMB is sent at once, or of one chunk that has more."""
    budget = it.ingest.embed_batch_tokens
    batch: list[Chunk] = []
    tokens = 0
    for chunk in chunks:
        if batch and tokens + chunk.token_count > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(chunk)
        tokens += chunk.token_count
    if batch:
        yield batch


def _describe(session: Session, version: DocumentVersion) -> _Described:
    document = session.scalars(select(Document).where(Document.id == version.document_id)).one_or_none()
    if document is None:
        raise Canceled("The document was erased.")
    return _Described(document.source_id, list(document.tags), version.created_at)


def _embed(
    it: Resources, claim: Claim, collection: DenseCollection, chunks: Sequence[Chunk]
) -> dict[bytes, list[float]]:
    text_of = {chunk.text_hash: chunk.text for chunk in chunks}
    with tenant_session(it.sessions, claim.tenant_id) as session:
        rows = session.execute(
            select(CachedEmbedding.text_hash, CachedEmbedding.vector).where(
                CachedEmbedding.text_hash.in_(list(text_of)), CachedEmbedding.model_version == collection.model_version
            )
        ).all()
    vectors = {text_hash: _floats(vector) for text_hash, vector in rows}
    # In order, so that of two documents with the same passages neither waits for the other's rows and it for ours.
    missing = sorted(text_of.keys() - vectors.keys())
    if not missing:
        return vectors
    embedder = it.embedders[collection.alias]
    embedded = embedder.embed([text_of[text_hash] for text_hash in missing], input_type="document")
    if embedded.model_version != collection.model_version:
        raise TemporarilyUnavailable("EMB has just changed its model.", code="embedder_unavailable")
    fresh = dict(zip(missing, embedded.vectors, strict=True))
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.prove(session, claim)
        session.execute(
            insert(CachedEmbedding).on_conflict_do_nothing(),
            [
                {
                    "tenant_id": claim.tenant_id,
                    "text_hash": text_hash,
                    "model_version": embedded.model_version,
                    "vector": _bytes(vector),
                }
                for text_hash, vector in fresh.items()
            ],
        )
    return vectors | fresh


def _point(version: DocumentVersion, described: _Described, chunk: Chunk, vector: list[float]) -> ChunkPoint:
    sparse = lexical.document_vector(chunk.text)
    return ChunkPoint(
        chunk_id=chunk.id,
        source_id=described.source_id,
        document_id=version.document_id,
        version_id=version.id,
        version=version.number,
        page=chunk.page,
        lang=chunk.lang,
        mime=version.mime,
        tags=described.tags,
        updated_at=described.updated_at,
        dense=vector,
        words=sparse.words,
        grams=sparse.grams,
    )


def _bytes(vector: list[float]) -> bytes:
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _floats(content: bytes) -> list[float]:
    numbers = array.array("f", content)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
