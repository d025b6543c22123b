"""The calls that we make of Qdrant, the same against every implementation of it."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from uuid import UUID, uuid4

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.conformance.qdrant_targets import EmbeddedServer, Target, embedded_server, target

__all__ = ["embedded_server", "target"]

DENSE = models.VectorParams(size=4, distance=models.Distance.COSINE)
IDF = models.SparseVectorParams(modifier=models.Modifier.IDF)
A_UUID = "5c4bd6ea-93d8-4f1a-b62a-3f1e1a52f0ef"


def dense_collection(it: Target) -> str:
    name = it.new_name()
    it.client.create_collection(name, vectors_config={"dense": DENSE})
    return name


def sparse_collection(it: Target) -> str:
    name = it.new_name()
    it.client.create_collection(name, vectors_config={}, sparse_vectors_config={"words": IDF, "grams": IDF})
    return name


def library(it: Target) -> str:
    """Six documents with every kind of field that a filter may look at."""
    name = dense_collection(it)
    rows = [
        {"tenant": "a", "lang": "en", "page": 1, "tags": ["law", "old"], "at": "2024-01-01T00:00:00Z", "open": True},
        {"tenant": "a", "lang": "ru", "page": 2, "tags": ["law"], "at": "2024-06-01T12:00:00Z", "open": False},
        {"tenant": "a", "lang": "en", "page": 3, "tags": [], "at": "2025-01-01T00:00:00Z"},
        {"tenant": "b", "lang": "en", "page": 4, "tags": ["tax"], "at": "2025-06-01T00:00:00+03:00"},
        {"tenant": "b", "lang": "de", "page": None, "tags": ["tax", "old"]},
        {"tenant": "b", "parts": [{"kind": "table", "rows": 3}, {"kind": "list", "rows": 9}]},
    ]
    points = [models.PointStruct(id=n, vector={"dense": [1, n, 0, 0]}, payload=row) for n, row in enumerate(rows)]
    it.client.upsert(name, points, wait=True)
    return name


def field(key: str, match: models.Match) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=match)


def ids_of(points: Sequence[models.Record | models.ScoredPoint]) -> list[int | str | UUID]:
    return [point.id for point in points]


FILTERS: dict[str, tuple[models.Filter, list[int]]] = {
    "match value": (models.Filter(must=[field("tenant", models.MatchValue(value="a"))]), [0, 1, 2]),
    "match integer": (models.Filter(must=[field("page", models.MatchValue(value=3))]), [2]),
    "match any": (models.Filter(must=[field("lang", models.MatchAny(any=["ru", "de"]))]), [1, 4]),
    "match except": (models.Filter(must=[field("lang", models.MatchExcept(**{"except": ["en"]}))]), [1, 4]),
    "array field": (models.Filter(must=[field("tags", models.MatchValue(value="old"))]), [0, 4]),
    "array field, spelled []": (models.Filter(must=[field("tags[]", models.MatchAny(any=["tax"]))]), [3, 4]),
    "must and must": (
        models.Filter(
            must=[field("tenant", models.MatchValue(value="a")), field("lang", models.MatchValue(value="en"))]
        ),
        [0, 2],
    ),
    "should": (
        models.Filter(should=[field("lang", models.MatchValue(value="ru")), field("page", models.MatchValue(value=4))]),
        [1, 3],
    ),
    "must not": (models.Filter(must_not=[field("tenant", models.MatchValue(value="a"))]), [3, 4, 5]),
    "filter in a filter": (
        models.Filter(
            must=[
                field("tenant", models.MatchValue(value="b")),
                models.Filter(must_not=[field("lang", models.MatchValue(value="en"))]),
            ]
        ),
        [4, 5],
    ),
    "range": (models.Filter(must=[models.FieldCondition(key="page", range=models.Range(gt=1, lte=3))]), [1, 2]),
    "range of dates": (
        models.Filter(
            must=[
                models.FieldCondition(
                    key="at", range=models.DatetimeRange(gte="2024-06-01T00:00:00Z", lt="2025-05-31T22:00:00Z")
                )
            ]
        ),
        [1, 2, 3],
    ),
    "has id": (models.Filter(must=[models.HasIdCondition(has_id=[1, 5, 77])]), [1, 5]),
    "is empty": (models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="tags"))]), [2, 5]),
    "is null": (models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="page"))]), [4]),
    "nested": (
        models.Filter(
            must=[
                models.NestedCondition(
                    nested=models.Nested(
                        key="parts",
                        filter=models.Filter(
                            must=[
                                field("kind", models.MatchValue(value="list")),
                                models.FieldCondition(key="rows", range=models.Range(gt=5)),
                            ]
                        ),
                    )
                )
            ]
        ),
        [5],
    ),
    "nested, of two different elements": (
        models.Filter(
            must=[
                models.NestedCondition(
                    nested=models.Nested(
                        key="parts",
                        filter=models.Filter(
                            must=[
                                field("kind", models.MatchValue(value="table")),
                                models.FieldCondition(key="rows", range=models.Range(gt=5)),
                            ]
                        ),
                    )
                )
            ]
        ),
        [],
    ),
}


class TestCollections:
    def test_a_collection_exists_from_its_creation_to_its_deletion(self, target: Target) -> None:
        name = target.new_name()
        assert not target.client.collection_exists(name)

        target.client.create_collection(name, vectors_config={"dense": DENSE})

        assert target.client.collection_exists(name)
        assert name in {one.name for one in target.client.get_collections().collections}
        assert target.client.delete_collection(name)
        assert not target.client.collection_exists(name)

    def test_a_description_shows_vectors_and_the_number_of_points(self, target: Target) -> None:
        name = target.new_name()
        target.client.create_collection(name, vectors_config={"dense": DENSE}, sparse_vectors_config={"words": IDF})
        target.client.upsert(name, [models.PointStruct(id=1, vector={"dense": [1, 0, 0, 0]})])

        described = target.client.get_collection(name)

        vectors = described.config.params.vectors
        assert isinstance(vectors, dict)
        assert (vectors["dense"].size, vectors["dense"].distance) == (4, models.Distance.COSINE)
        assert (described.config.params.sparse_vectors or {})["words"].modifier == models.Modifier.IDF
        assert described.points_count == 1

    def test_a_name_can_be_taken_once(self, target: Target) -> None:
        name = dense_collection(target)

        with target.refused(409):
            target.client.create_collection(name, vectors_config={"dense": DENSE})

    def test_an_unknown_collection_is_not_found(self, target: Target) -> None:
        unknown = target.new_name()

        with target.refused(404):
            target.client.get_collection(unknown)
        with target.refused(404):
            target.client.query_points(unknown, query=[1.0, 0.0, 0.0, 0.0], using="dense")
        with target.refused(404):
            target.client.upsert(unknown, [models.PointStruct(id=1, vector={"dense": [1, 0, 0, 0]})])


class TestAliases:
    def test_an_alias_stands_for_its_collection_everywhere(self, target: Target) -> None:
        name, alias = library(target), target.new_name("alias")
        target.client.update_collection_aliases([create_alias(alias, name)])

        assert target.client.count(alias).count == 6
        assert len(target.client.scroll(alias)[0]) == 6
        assert target.client.get_collection(alias).points_count == 6
        assert target.client.query_points(alias, query=[1.0, 0.0, 0.0, 0.0], using="dense").points[0].id == 0
        target.client.upsert(alias, [models.PointStruct(id=9, vector={"dense": [1, 0, 0, 0]})])
        assert target.client.count(name).count == 7

    def test_an_alias_moves_to_another_collection_in_one_step(self, target: Target) -> None:
        old, new, alias = library(target), dense_collection(target), target.new_name("alias")
        target.client.update_collection_aliases([create_alias(alias, old)])

        target.client.update_collection_aliases(
            [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)), create_alias(alias, new)]
        )

        assert target.client.count(alias).count == 0
        assert target.client.get_collection_aliases(old).aliases == []
        assert [one.alias_name for one in target.client.get_collection_aliases(new).aliases] == [alias]
        everywhere = {one.alias_name: one.collection_name for one in target.client.get_aliases().aliases}
        assert everywhere[alias] == new

    def test_a_renamed_alias_stands_for_the_same_collection(self, target: Target) -> None:
        name, alias, renamed = library(target), target.new_name("alias"), target.new_name("alias")
        target.client.update_collection_aliases([create_alias(alias, name)])

        rename = models.RenameAlias(old_alias_name=alias, new_alias_name=renamed)
        target.client.update_collection_aliases([models.RenameAliasOperation(rename_alias=rename)])

        assert target.client.count(renamed).count == 6
        with target.refused(404):
            target.client.count(alias)

    def test_an_alias_of_nothing_is_refused(self, target: Target) -> None:
        with target.refused(404):
            target.client.update_collection_aliases([create_alias(target.new_name("alias"), target.new_name())])

    def test_a_deleted_collection_takes_its_aliases_along(self, target: Target) -> None:
        name, alias = library(target), target.new_name("alias")
        target.client.update_collection_aliases([create_alias(alias, name)])

        target.client.delete_collection(name)

        assert alias not in {one.alias_name for one in target.client.get_aliases().aliases}


class TestPoints:
    def test_a_point_comes_back_as_it_was_stored(self, target: Target) -> None:
        name = target.new_name()
        target.client.create_collection(name, vectors_config={"dense": DENSE}, sparse_vectors_config={"words": IDF})
        payload = {"text": "Ёлка — 'quoted' \u0001", "n": 3, "f": 0.5, "none": None, "deep": {"list": [1, {"a": True}]}}
        words = models.SparseVector(indices=[7, 4_000_000_000], values=[0.5, 2.0])

        target.client.upsert(
            name, [models.PointStruct(id=A_UUID, vector={"dense": [0, 3, 0, 4], "words": words}, payload=payload)]
        )

        (point,) = target.client.retrieve(name, [A_UUID], with_payload=True, with_vectors=True)
        assert point.id == A_UUID
        assert point.payload == payload
        assert isinstance(point.vector, dict)
        # Vectors under the cosine distance are stored at length 1.
        assert point.vector["dense"] == pytest.approx([0, 0.6, 0, 0.8], abs=1e-6)
        assert point.vector["words"] == words

    def test_an_upsert_replaces_the_whole_point(self, target: Target) -> None:
        name = dense_collection(target)
        target.client.upsert(name, [models.PointStruct(id=1, vector={"dense": [1, 0, 0, 0]}, payload={"a": 1})])

        target.client.upsert(name, [models.PointStruct(id=1, vector={"dense": [0, 1, 0, 0]}, payload={"b": 2})])

        (point,) = target.client.retrieve(name, [1], with_vectors=True)
        assert point.payload == {"b": 2}
        assert isinstance(point.vector, dict)
        assert point.vector["dense"] == [0, 1, 0, 0]
        assert target.client.count(name).count == 1

    def test_a_batch_is_stored_row_by_row(self, target: Target) -> None:
        name = dense_collection(target)

        target.client.upsert(
            name,
            models.Batch(
                ids=[1, A_UUID],
                vectors={"dense": [[1, 0, 0, 0], [0, 1, 0, 0]]},
                payloads=[{"n": "one"}, {"n": "two"}],
            ),
        )

        found = {point.id: point.payload for point in target.client.retrieve(name, [1, A_UUID])}
        assert found == {1: {"n": "one"}, A_UUID: {"n": "two"}}

    def test_only_points_that_exist_are_retrieved_with_the_fields_asked_for(self, target: Target) -> None:
        name = library(target)

        found = target.client.retrieve(name, [3, 99], with_payload=["page"])

        assert [(point.id, point.payload, point.vector) for point in found] == [(3, {"page": 4}, None)]

    @pytest.mark.parametrize(
        ("vector", "payload"),
        [({"dense": [1.0, 0.0]}, {}), ({"unknown": [1.0, 0.0, 0.0, 0.0]}, {})],
        ids=["a vector of another size", "a vector of an unknown name"],
    )
    def test_a_vector_that_does_not_fit_is_refused_and_nothing_is_stored(
        self, target: Target, vector: dict[str, list[float]], payload: dict[str, object]
    ) -> None:
        name = dense_collection(target)

        with target.refused(400):
            target.client.upsert(name, [models.PointStruct(id=1, vector=dict(vector), payload=payload)])

        assert target.client.scroll(name) == ([], None)

    def test_points_are_deleted_by_id_and_missing_ones_are_no_error(self, target: Target) -> None:
        name = library(target)

        target.client.delete(name, models.PointIdsList(points=[0, 1, 99]), wait=True)

        assert ids_of(target.client.scroll(name)[0]) == [2, 3, 4, 5]

    def test_points_are_deleted_by_filter(self, target: Target) -> None:
        name = library(target)
        of_a = models.Filter(must=[field("tenant", models.MatchValue(value="a"))])

        target.client.delete(name, models.FilterSelector(filter=of_a), wait=True)

        assert ids_of(target.client.scroll(name)[0]) == [3, 4, 5]

    def test_set_payload_changes_the_named_fields_only(self, target: Target) -> None:
        name = library(target)

        target.client.set_payload(name, {"lang": "fr"}, points=[0])
        of_b = models.Filter(must=[field("tenant", models.MatchValue(value="b"))])
        target.client.set_payload(name, {"seen": "yes"}, points=of_b)

        (first,) = target.client.retrieve(name, [0])
        assert first.payload is not None
        assert (first.payload["lang"], first.payload["page"]) == ("fr", 1)
        seen = models.Filter(must=[field("seen", models.MatchValue(value="yes"))])
        assert target.client.count(name, seen).count == 3

    def test_deleted_fields_are_gone(self, target: Target) -> None:
        name = library(target)

        target.client.delete_payload(name, ["tags"], points=[0])

        (first,) = target.client.retrieve(name, [0], with_payload=["tags", "page"])
        assert first.payload == {"page": 1}


class TestFilters:
    @pytest.mark.parametrize("case", FILTERS)
    def test_a_filter_lets_the_same_points_through_in_every_call(self, target: Target, case: str) -> None:
        name = library(target)
        condition, expected = FILTERS[case]

        assert ids_of(target.client.scroll(name, scroll_filter=condition)[0]) == expected
        assert target.client.count(name, condition, exact=True).count == len(expected)
        found = target.client.query_points(name, query=[1.0, 1.0, 0.0, 0.0], using="dense", query_filter=condition)
        assert sorted(point.id for point in found.points) == expected

    @pytest.mark.parametrize("case", ["match value", "match any", "array field", "range", "range of dates"])
    def test_a_payload_index_changes_no_answer(self, target: Target, case: str) -> None:
        name = library(target)
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        target.client.create_payload_index(name, "tenant", tenant, wait=True)
        for key, kind in {
            "lang": models.PayloadSchemaType.KEYWORD,
            "tags": models.PayloadSchemaType.KEYWORD,
            "page": models.PayloadSchemaType.INTEGER,
            "at": models.PayloadSchemaType.DATETIME,
        }.items():
            target.client.create_payload_index(name, key, kind, wait=True)
        condition, expected = FILTERS[case]

        assert ids_of(target.client.scroll(name, scroll_filter=condition)[0]) == expected

    def test_payload_indexes_are_shown_until_they_are_deleted(self, target: Target) -> None:
        name = library(target)
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        target.client.create_payload_index(name, "tenant", tenant, wait=True)
        target.client.create_payload_index(name, "at", models.PayloadSchemaType.DATETIME, wait=True)

        shown = target.client.get_collection(name).payload_schema
        target.client.delete_payload_index(name, "at", wait=True)

        if target.in_memory:  # which has none
            assert shown == {}
            return
        assert shown["tenant"].data_type == models.PayloadSchemaType.KEYWORD
        assert isinstance(shown["tenant"].params, models.KeywordIndexParams)
        assert shown["tenant"].params.is_tenant
        assert (shown["at"].data_type, shown["at"].points) == (models.PayloadSchemaType.DATETIME, 4)
        assert set(target.client.get_collection(name).payload_schema) == {"tenant"}


class TestSearch:
    def test_dense_hits_come_best_first_with_their_cosine(self, target: Target) -> None:
        name = library(target)

        hits = target.client.query_points(name, query=[1.0, 0.0, 0.0, 0.0], using="dense", limit=3).points

        assert ids_of(hits) == [0, 1, 2]
        assert [hit.score for hit in hits] == pytest.approx([1, 1 / math.sqrt(2), 1 / math.sqrt(5)], abs=1e-5)
        assert hits[1].payload is not None
        assert hits[1].payload["lang"] == "ru"
        assert hits[1].vector is None

    def test_offset_threshold_payload_and_vectors_are_as_asked(self, target: Target) -> None:
        name = library(target)

        hits = target.client.query_points(
            name,
            query=[1.0, 0.0, 0.0, 0.0],
            using="dense",
            offset=1,
            score_threshold=0.4,
            with_payload=["page"],
            with_vectors=True,
        ).points

        assert [(hit.id, hit.payload) for hit in hits] == [(1, {"page": 2}), (2, {"page": 3})]
        assert isinstance(hits[0].vector, dict)
        assert hits[0].vector["dense"] == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 0, 0], abs=1e-5)

    def test_sparse_scores_weigh_each_word_by_its_rarity(self, target: Target) -> None:
        name = sparse_collection(target)
        texts = {1: [10, 20], 2: [10, 30], 3: [10], 4: [40]}
        target.client.upsert(
            name,
            [
                models.PointStruct(id=n, vector={"words": models.SparseVector(indices=ids, values=[1.0] * len(ids))})
                for n, ids in texts.items()
            ],
        )

        question = models.SparseVector(indices=[10, 20], values=[1.0, 1.0])
        hits = target.client.query_points(name, query=question, using="words").points

        def rarity(documents_with_it: int) -> float:
            return math.log((4 - documents_with_it + 0.5) / (documents_with_it + 0.5) + 1)

        scores = {hit.id: hit.score for hit in hits}
        assert hits[0].id == 1
        assert set(scores) == {1, 2, 3}
        assert scores[1] == pytest.approx(rarity(3) + rarity(1), abs=1e-5)
        assert scores[3] == pytest.approx(rarity(3), abs=1e-5)

    def test_a_batch_answers_each_search_in_its_place(self, target: Target) -> None:
        name = sparse_collection(target)
        words, grams = (models.SparseVector(indices=[n], values=[1.0]) for n in (1, 2))
        target.client.upsert(
            name,
            [
                models.PointStruct(id=1, vector={"words": words}, payload={"chunk_id": "w"}),
                models.PointStruct(id=2, vector={"grams": grams}, payload={"chunk_id": "g"}),
            ],
        )

        answers = target.client.query_batch_points(
            name,
            [
                models.QueryRequest(query=grams, using="grams", limit=5, with_payload=["chunk_id"]),
                models.QueryRequest(query=words, using="words", limit=5, with_payload=["chunk_id"]),
            ],
        )

        assert [[hit.payload for hit in answer.points] for answer in answers] == [
            [{"chunk_id": "g"}],
            [{"chunk_id": "w"}],
        ]

    def test_a_question_that_does_not_fit_is_refused(self, target: Target) -> None:
        name = dense_collection(target)
        target.client.upsert(name, [models.PointStruct(id=1, vector={"dense": [1, 0, 0, 0]})])

        with target.refused(400):
            target.client.query_points(name, query=[1.0, 0.0, 0.0, 0.0], using="unknown")


class TestScroll:
    def test_pages_follow_one_another_in_the_order_of_ids(self, target: Target) -> None:
        name = dense_collection(target)
        uuids = [str(uuid4()) for _ in range(5)]
        wanted = [*range(20), *uuids]
        target.client.upsert(name, [models.PointStruct(id=one, vector={"dense": [1, 0, 0, 0]}) for one in wanted])

        seen: list[int | str | UUID] = []
        offset: int | str | UUID | None = None
        while True:
            page, following = target.client.scroll(name, limit=7, offset=offset)  # type: ignore[arg-type]  # its own answer
            assert len(page) <= 7
            seen += ids_of(page)
            offset = following  # type: ignore[assignment]  # typed as a gRPC id as well
            if offset is None:
                break

        assert sorted(map(str, seen)) == sorted(map(str, wanted))
        assert [one for one in seen if isinstance(one, int)] == list(range(20))

    def test_a_listing_shows_what_is_asked_for(self, target: Target) -> None:
        name = library(target)

        (first, *_), _ = target.client.scroll(name, limit=1, with_payload=False, with_vectors=["dense"])

        assert not first.payload
        assert isinstance(first.vector, dict)
        assert first.vector["dense"] == [1, 0, 0, 0]


class TestEmbeddedServer:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
    def test_everything_acknowledged_is_there_after_the_process_ended(
        self, tmp_path: Path, how: signal.Signals
    ) -> None:
        server = EmbeddedServer(tmp_path)
        server.start()
        it = Target(server.client(), in_memory=False)
        name, words, gone, alias = library(it), sparse_collection(it), dense_collection(it), it.new_name("alias")
        it.client.create_payload_index(name, "lang", models.PayloadSchemaType.KEYWORD)
        it.client.update_collection_aliases([create_alias(alias, name)])
        it.client.upsert(
            words, [models.PointStruct(id=A_UUID, vector={"words": models.SparseVector(indices=[3], values=[1.0])})]
        )
        with it.refused(400):
            it.client.upsert(name, [models.PointStruct(id=77, vector={"unknown": [1.0, 0.0, 0.0, 0.0]})])
        it.client.delete(name, [0])
        it.client.delete_collection(gone)

        server.end(how)
        server.start()

        assert ids_of(it.client.scroll(alias)[0]) == [1, 2, 3, 4, 5]
        assert set(it.client.get_collection(name).payload_schema) == {"lang"}
        question = models.SparseVector(indices=[3], values=[1.0])
        assert ids_of(it.client.query_points(words, query=question, using="words").points) == [A_UUID]
        assert not it.client.collection_exists(gone)
        server.end()

    def test_a_large_collection_gets_its_graph_while_it_is_written_and_searched(self, tmp_path: Path) -> None:
        server = EmbeddedServer(tmp_path)
        server.start()
        it = Target(server.client(), in_memory=False)
        name = it.new_name()
        # 128 numbers: enough bytes to be worth a graph.
        it.client.create_collection(
            name, vectors_config={"dense": models.VectorParams(size=128, distance=models.Distance.COSINE)}
        )
        for start in range(0, 25_000, 1000):
            it.client.upsert(
                name, [models.PointStruct(id=n, vector={"dense": wave(n)}) for n in range(start, start + 1000)]
            )

        written = 25_000
        deadline = monotonic() + 240
        while not it.client.get_collection(name).indexed_vectors_count:
            it.client.upsert(name, [models.PointStruct(id=written, vector={"dense": wave(written)})])
            written += 1
            assert monotonic() < deadline, "no graph was built"
            sleep(0.02)

        assert it.client.count(name).count == written
        for probe in (17, 12_345, written - 1):
            assert it.client.query_points(name, query=wave(probe), using="dense", limit=1).points[0].id == probe
        server.end(signal.SIGKILL)
        server.start()
        assert it.client.count(name).count == written
        server.end()

    def test_many_writers_and_readers_at_once_lose_nothing(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        name = dense_collection(it)

        def write_and_read(writer: int) -> int:
            client = embedded_server.client()
            for n in range(20):
                client.upsert(name, [models.PointStruct(id=writer * 100 + n, vector={"dense": [1, n, writer, 0]})])
                client.query_points(name, query=[1.0, 0.0, 0.0, 0.0], using="dense")
            return 20

        with ThreadPoolExecutor(8) as pool:
            written = sum(pool.map(write_and_read, range(8)))

        assert it.client.count(name).count == written
        it.client.delete_collection(name)

    def test_a_body_that_is_no_request_is_refused_in_words(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        url = f"{embedded_server.url}/collections/{dense_collection(it)}/points"

        not_json = httpx.put(url, content=b"{", headers={"content-type": "application/json"})
        not_points = httpx.put(url, json={"points": [{"id": "abc", "vector": {"dense": [1, 0, 0, 0]}}]})
        no_limit = httpx.post(f"{url}/scroll", json={"limit": 0})

        assert (not_json.status_code, not_points.status_code, no_limit.status_code) == (400, 400, 422)
        assert "not a valid point ID" in not_points.json()["status"]["error"]

    def test_matching_a_boolean_is_refused_rather_than_answered_wrongly(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        name = library(it)

        with it.refused(400):
            it.client.count(name, models.Filter(must=[field("open", models.MatchValue(value=True))]))

    def test_health_version_and_metrics_can_be_read(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        name = library(it)

        assert it.client.info().version.startswith("1.")
        assert all(httpx.get(f"{embedded_server.url}/{path}").is_success for path in ("healthz", "livez", "readyz"))
        assert f'collection_points{{id="{name}"}} 6.0' in httpx.get(f"{embedded_server.url}/metrics").text

    @pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
    def test_with_a_key_set_nobody_reads_without_it(self, tmp_path: Path) -> None:
        server = EmbeddedServer(tmp_path, api_key="correct horse")
        server.start()

        assert server.client().get_collections().collections == []
        for offered in (None, "wrong"):
            with pytest.raises(UnexpectedResponse) as caught:
                QdrantClient(url=server.url, api_key=offered, check_compatibility=False).get_collections()
            assert caught.value.status_code == 401
        assert httpx.get(f"{server.url}/readyz").is_success
        server.end()


def create_alias(alias: str, collection: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))


def wave(n: int) -> list[float]:
    """A vector that is unlike that of any other number."""
    return [math.sin((n + 1) * (k + 1) * 0.37 + k * k) for k in range(128)]
