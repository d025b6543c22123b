"""The vector index: chunks as points, found by meaning (dense) and by words (sparse). Can be rebuilt from PostgreSQL.

This wrapper adds the tenant to every point and to every filter; nothing else in the project talks to Qdrant.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from sluice.errors import TemporarilyUnavailable
from sluice.ids import derived_id
from sluice.settings import VectorIndexSettings
from sluice.vector_points import ChunkPoint, DenseCollection, Hit, IndexedChunk, PassageFilter, SparseVector

WORDS: Final = "words"
GRAMS: Final = "grams"
DENSE: Final = "dense"
_UPSERT: Final = 256
_KEYWORDS: Final = ("source_id", "document_id", "version_id", "chunk_id", "lang", "mime", "tags")


class VectorIndex:
    """Qdrant, as seen by one tenant at a time."""

    def __init__(self, settings: VectorIndexSettings, lexical_version: str) -> None:
        with warnings.catch_warnings():
            # The network between us and Qdrant is the stack's own; every process would say so at every start.
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            self._client = QdrantClient(
                url=settings.url,
                api_key=settings.api_key.get_secret_value() if settings.api_key else None,
                timeout=int(settings.timeout),
                check_compatibility=False,
            )
        self._lexical = f"lexical_{lexical_version}"
        self._lexical_version = lexical_version
        self._ensured: set[str] = set()

    @property
    def lexical(self) -> str:
        """The name of the collection of the lexical leg."""
        return self._lexical

    def ensure(self, dense: DenseCollection, *, again: bool = False) -> None:
        """Make the collections of this model version and of the lexical leg, their indexes and aliases.

        `again`: look even if they were there before, because the index may have lost them since.
        """
        if dense.name in self._ensured and not again:
            return
        with _translated():
            self._create(
                dense.name, {DENSE: models.VectorParams(size=dense.dimension, distance=models.Distance.COSINE)}, {}
            )
            idf = models.SparseVectorParams(modifier=models.Modifier.IDF)
            self._create(self._lexical, {}, {WORDS: idf, GRAMS: idf})
            self._point_alias(dense)
        self._ensured.add(dense.name)

    def upsert(self, tenant_id: UUID, dense: DenseCollection, points: Sequence[ChunkPoint]) -> None:
        """Add or overwrite these points, by meaning and by words; on return they are durable and can be found."""
        with self._ready(dense), _translated():
            for start in range(0, len(points), _UPSERT):
                some = points[start : start + _UPSERT]
                self._client.upsert(dense.name, [_dense_point(tenant_id, dense, p) for p in some], wait=True)
                self._client.upsert(self._lexical, [self._lexical_point(tenant_id, p) for p in some], wait=True)

    def upsert_dense(self, tenant_id: UUID, dense: DenseCollection, points: Sequence[ChunkPoint]) -> None:
        """Add or overwrite the dense half of these points: the words are the same whichever model embeds."""
        with self._ready(dense), _translated():
            for start in range(0, len(points), _UPSERT):
                some = points[start : start + _UPSERT]
                self._client.upsert(dense.name, [_dense_point(tenant_id, dense, p) for p in some], wait=True)

    def search_dense(
        self, tenant_id: UUID, dense: DenseCollection, vector: list[float], within: PassageFilter, limit: int
    ) -> list[Hit]:
        """The chunks nearest in meaning, by cosine similarity, best first; `dense` is of the model of the vector.

        `TemporarilyUnavailable` also while nothing was embedded by this model.
        """
        with _translated():
            answer = self._client.query_points(
                dense.name,
                query=vector,
                using=DENSE,
                query_filter=_filter(tenant_id, within),
                limit=limit,
                with_payload=["chunk_id"],
            )
        return _hits(answer)

    def search_lexical(
        self, tenant_id: UUID, words: SparseVector, grams: SparseVector, within: PassageFilter, limit: int
    ) -> tuple[list[Hit], list[Hit]]:
        """The chunks that share words, and those that share 4-grams, with the question, by BM25, best first."""
        requests = [
            models.QueryRequest(
                query=_sparse(sparse),
                using=name,
                filter=_filter(tenant_id, within),
                limit=limit,
                with_payload=["chunk_id"],
            )
            for name, sparse in ((WORDS, words), (GRAMS, grams))
        ]
        with _translated():
            by_words, by_grams = self._client.query_batch_points(self._lexical, requests)
        return _hits(by_words), _hits(by_grams)

    def count_version(self, tenant_id: UUID, collection: str, version_id: UUID) -> int:
        """How many points of a version a collection holds, by its name; none while there is no such collection."""
        condition = _matching(tenant_id, "version_id", [version_id])
        with _translated():
            try:
                return self._client.count(collection, count_filter=condition, exact=True).count
            except UnexpectedResponse as error:
                if error.status_code != httpx.codes.NOT_FOUND:
                    raise
                return 0

    def chunk_ids(self, tenant_id: UUID, collection: str, document_id: UUID) -> set[UUID]:
        """The chunks of a document that a collection holds, by its name or alias."""
        found: set[UUID] = set()
        offset: Any = None
        with _translated():
            while True:
                points, offset = self._client.scroll(
                    collection,
                    scroll_filter=_matching(tenant_id, "document_id", [document_id]),
                    with_payload=["chunk_id"],
                    limit=1000,
                    offset=offset,
                )
                found.update(UUID((point.payload or {})["chunk_id"]) for point in points)
                if offset is None:
                    return found

    def page(
        self, tenant_id: UUID, collection: str, after: str | None, limit: int
    ) -> tuple[list[IndexedChunk], str | None]:
        """Up to `limit` of the tenant's points in the order of their ids, and where the next page begins."""
        with _translated():
            points, offset = self._client.scroll(
                collection,
                scroll_filter=models.Filter(must=[_any_of("tenant", (tenant_id,))]),
                with_payload=["chunk_id", "version_id"],
                limit=limit,
                offset=after,
            )
        found = []
        for point in points:
            payload = point.payload or {}
            found.append(IndexedChunk(str(point.id), UUID(payload["chunk_id"]), UUID(payload["version_id"])))
        return found, None if offset is None else str(offset)

    def held(self, tenant_id: UUID, collection: str, chunk_ids: Sequence[UUID]) -> set[UUID]:
        """Those of the chunks that the collection has a point of."""
        with _translated():
            points, _ = self._client.scroll(
                collection,
                scroll_filter=_matching(tenant_id, "chunk_id", chunk_ids),
                with_payload=["chunk_id"],
                # Should a chunk ever have two points, the rest still fits.
                limit=2 * len(chunk_ids) + 1,
            )
        return {UUID((point.payload or {})["chunk_id"]) for point in points}

    def delete_points(self, tenant_id: UUID, collection: str, point_ids: Sequence[str]) -> None:
        """Remove these points of the tenant from one collection."""
        these = models.HasIdCondition(has_id=list(point_ids))
        condition = models.Filter(must=[_any_of("tenant", (tenant_id,)), these])
        with _translated():
            self._client.delete(collection, points_selector=models.FilterSelector(filter=condition), wait=True)

    def delete_versions(self, tenant_id: UUID, version_ids: Sequence[UUID]) -> None:
        """Remove every point of these versions, from every collection."""
        self._delete(_matching(tenant_id, "version_id", version_ids))

    def delete_document(self, tenant_id: UUID, document_id: UUID) -> None:
        """Remove every point of a document, from every collection."""
        self._delete(_matching(tenant_id, "document_id", [document_id]))

    def count_document(self, tenant_id: UUID, document_id: UUID) -> int:
        """How many points of a document are left, over all collections."""
        condition = _matching(tenant_id, "document_id", [document_id])
        with _translated():
            return sum(
                self._client.count(name, count_filter=condition, exact=True).count for name in self.collections()
            )

    def collections(self) -> list[str]:
        """The names of our collections."""
        with _translated():
            names = [collection.name for collection in self._client.get_collections().collections]
        return sorted(name for name in names if name.startswith(("chunks_", "lexical_")))

    def ping(self) -> None:
        """Return when the index answers; `TemporarilyUnavailable` otherwise."""
        self.collections()

    @contextmanager
    def _ready(self, dense: DenseCollection) -> Iterator[None]:
        """The collections are there; after any fault they are looked at again: the index may have come back empty."""
        self.ensure(dense)
        self._ensured.discard(dense.name)
        yield
        self._ensured.add(dense.name)

    def _delete(self, condition: models.Filter) -> None:
        with _translated():
            for name in self.collections():
                self._client.delete(name, points_selector=models.FilterSelector(filter=condition), wait=True)

    def _lexical_point(self, tenant_id: UUID, point: ChunkPoint) -> models.PointStruct:
        return models.PointStruct(
            id=str(derived_id(point.chunk_id, self._lexical_version)),
            vector={
                WORDS: _sparse(point.words),
                GRAMS: _sparse(point.grams),
            },
            payload=_payload(tenant_id, point),
        )

    def _create(
        self, name: str, dense: dict[str, models.VectorParams], sparse: dict[str, models.SparseVectorParams]
    ) -> None:
        if not self._client.collection_exists(name):
            try:
                self._client.create_collection(name, vectors_config=dense, sparse_vectors_config=sparse)
            except UnexpectedResponse as error:
                # Another worker made it in this moment.
                if error.status_code != httpx.codes.CONFLICT and not self._client.collection_exists(name):
                    raise
        indexed = self._client.get_collection(name).payload_schema
        if "tenant" not in indexed:
            tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
            self._client.create_payload_index(name, "tenant", tenant, wait=True)
        for field in _KEYWORDS:
            if field not in indexed:
                self._client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD, wait=True)

    def _point_alias(self, dense: DenseCollection) -> None:
        aliases = {alias.alias_name: alias.collection_name for alias in self._client.get_aliases().aliases}
        if aliases.get(dense.alias_name) == dense.name:
            return
        # Safe at any time: search asks the collection of its vector's own model, whatever the alias says.
        gone = models.DeleteAlias(alias_name=dense.alias_name)
        create = models.CreateAlias(collection_name=dense.name, alias_name=dense.alias_name)
        changes: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=create)]
        if dense.alias_name in aliases:
            changes.insert(0, models.DeleteAliasOperation(delete_alias=gone))
        self._client.update_collection_aliases(changes)


def _dense_point(tenant_id: UUID, collection: DenseCollection, point: ChunkPoint) -> models.PointStruct:
    return models.PointStruct(
        id=str(derived_id(point.chunk_id, collection.model_version)),
        vector={DENSE: point.dense},
        payload={
            **_payload(tenant_id, point),
            "embed_model_alias": collection.alias,
            "embed_model_version": collection.model_version,
        },
    )


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def _payload(tenant_id: UUID, point: ChunkPoint) -> dict[str, Any]:
    return {
        "tenant": str(tenant_id),
        "source_id": str(point.source_id),
        "document_id": str(point.document_id),
        "version_id": str(point.version_id),
        "version": point.version,
        "chunk_id": str(point.chunk_id),
        "page": point.page,
        "lang": point.lang,
        "mime": point.mime,
        "tags": point.tags,
        "updated_at": point.updated_at.isoformat(),
    }


def _filter(tenant_id: UUID, within: PassageFilter) -> models.Filter:
    wanted: tuple[tuple[str, Sequence[object]], ...] = (
        ("tenant", (tenant_id,)),
        ("source_id", within.source_ids),
        ("tags", within.tags),
        ("lang", within.langs),
        ("mime", within.mimes),
    )
    return models.Filter(must=[_any_of(field, values) for field, values in wanted if values])


def _matching(tenant_id: UUID, field: str, values: Sequence[object]) -> models.Filter:
    return models.Filter(must=[_any_of("tenant", (tenant_id,)), _any_of(field, values)])


def _any_of(field: str, values: Sequence[object]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=[str(value) for value in values]))


def _hits(answer: models.QueryResponse) -> list[Hit]:
    return [Hit(UUID((point.payload or {})["chunk_id"]), point.score) for point in answer.points]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except UnexpectedResponse as error:
        raise TemporarilyUnavailable(
            f"The vector index answered {error.status_code}.", code="vector_index_unavailable"
        ) from error
    except (ResponseHandlingException, ApiException, httpx.HTTPError) as error:
        raise TemporarilyUnavailable("The vector index does not answer.", code="vector_index_unavailable") from error
