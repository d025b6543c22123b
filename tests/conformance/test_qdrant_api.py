"""The calls that we make of Qdrant, the same against every implementation of it."""

from __future__ import annotations

import math
from uuid import UUID, uuid4

import pytest
from qdrant_client import models

from tests.conformance.qdrant_targets import (
    A_UUID,
    DENSE,
    IDF,
    Target,
    create_alias,
    dense_collection,
    embedded_server,
    field,
    ids_of,
    library,
    sparse_collection,
    target,
)

__all__ = ["embedded_server", "target"]


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
            page, following = target.client.scroll(name, limit=7, offset=offset)
            assert len(page) <= 7
            seen += ids_of(page)
            offset = following
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
