"""Filters and payload indexes, the same against every implementation of Qdrant."""

from __future__ import annotations

import pytest
from qdrant_client import models

from tests.conformance.qdrant_targets import (
    Target,
    embedded_server,
    field,
    ids_of,
    library,
    target,
)

__all__ = ["embedded_server", "target"]


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
