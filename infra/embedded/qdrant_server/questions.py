"""Searches: from the words of the REST API to the engine's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import qdrant_edge as engine
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.conditions import optional_filter, point_id
from infra.embedded.qdrant_server.refusals import BadValue, WrongInput
from infra.embedded.qdrant_server.vectors import engine_vector

if TYPE_CHECKING:
    from qdrant_edge import WithPayloadType

_DEFAULT_LIMIT: Final = 10


def query_request(given: rest.QueryRequest) -> engine.QueryRequest:
    """One search, in the engine's words."""
    if given.lookup_from is not None or given.prefetch:
        raise WrongInput("lookup_from and prefetch are not served by the embedded Qdrant")
    return engine.QueryRequest(
        limit=positive(given.limit, _DEFAULT_LIMIT),
        offset=given.offset,
        query=_scoring(given.query, given.using),
        filter=optional_filter(given.filter),
        score_threshold=given.score_threshold,
        params=_search_params(given.params),
        with_vector=given.with_vector,
        with_payload=payload_choice(given.with_payload),
    )


def scroll_request(given: rest.ScrollRequest) -> engine.ScrollRequest:
    """One page of a listing, in the engine's words."""
    return engine.ScrollRequest(
        offset=None if given.offset is None else point_id(given.offset),
        limit=positive(given.limit, _DEFAULT_LIMIT),
        filter=optional_filter(given.filter),
        with_payload=payload_choice(given.with_payload, default=True),
        with_vector=given.with_vector,
        order_by=None if given.order_by is None else _order(given.order_by),
    )


def positive(given: int | None, default: int) -> int:
    """The limit to apply; 422 where it is not at least 1."""
    limit = default if given is None else given
    if limit < 1:
        raise BadValue(f"limit: value {limit} invalid, must be 1 or larger")
    return limit


def payload_choice(given: rest.WithPayloadInterface | None, *, default: bool = False) -> WithPayloadType:
    """Which fields of the payload an answer shows."""
    match given:
        case None:
            return default
        case rest.PayloadSelectorInclude():
            return engine.PayloadSelector.Include(given.include)
        case rest.PayloadSelectorExclude():
            return engine.PayloadSelector.Exclude(given.exclude)
        case _:
            return given


def _scoring(given: rest.QueryInterface | None, using: str | None) -> engine.Query | None:
    match given:
        case None:
            return None
        case rest.NearestQuery(nearest=vector, mmr=None):
            return engine.Query.Nearest(engine_vector(vector), using=using)
        case rest.SparseVector() | list():
            return engine.Query.Nearest(engine_vector(given), using=using)
        case _:
            raise WrongInput(f"queries of type {type(given).__name__} are not served by the embedded Qdrant")


def _search_params(given: rest.SearchParams | None) -> engine.SearchParams | None:
    if given is None:
        return None
    return engine.SearchParams(hnsw_ef=given.hnsw_ef, exact=bool(given.exact), indexed_only=bool(given.indexed_only))


def _order(given: rest.OrderBy | str) -> engine.OrderBy:
    if isinstance(given, str):
        return engine.OrderBy(given)
    start = given.start_from
    return engine.OrderBy(
        given.key,
        engine.Direction.Desc if given.direction == rest.Direction.DESC else engine.Direction.Asc,
        start if start is None or isinstance(start, int | float) else start.isoformat(),
    )
