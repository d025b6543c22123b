"""Filters: from the words of the REST API to the engine's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import TYPE_CHECKING, Any, Final, assert_never
from uuid import UUID

import qdrant_edge as engine
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.refusals import BadFormat, WrongInput

if TYPE_CHECKING:
    from qdrant_edge import ConditionType, MatchType, RangeType

Condition = (
    rest.FieldCondition
    | rest.IsEmptyCondition
    | rest.IsNullCondition
    | rest.HasIdCondition
    | rest.HasVectorCondition
    | rest.SliceCondition
    | rest.NestedCondition
    | rest.Filter
)


def point_id(given: int | str | UUID) -> int | UUID:
    """The id as the engine takes it; Qdrant knows unsigned integers and UUIDs only."""
    if isinstance(given, int) and given >= 0:
        return given
    try:
        return given if isinstance(given, UUID) else UUID(str(given))
    except ValueError:
        raise BadFormat(
            f"value {given} is not a valid point ID, valid values are either an unsigned integer or a UUID"
        ) from None


def optional_filter(given: rest.Filter | None) -> engine.Filter | None:
    """The engine's filter, or None where there is nothing to filter by."""
    return None if given is None else engine_filter(given)


def engine_filter(given: rest.Filter) -> engine.Filter:
    """The same filter in the engine's words."""
    at_least = given.min_should
    return engine.Filter(
        must=_conditions(given.must),
        should=_conditions(given.should),
        must_not=_conditions(given.must_not),
        min_should=None
        if at_least is None
        else engine.MinShould(_conditions(at_least.conditions) or [], at_least.min_count),
    )


def _conditions(given: Iterable[Condition] | Condition | None) -> list[ConditionType] | None:
    if given is None:
        return None
    # A pydantic model is iterable too: one condition may stand without its list.
    several = [given] if isinstance(given, Condition) else given
    return [_condition(one) for one in several]


def _condition(given: Condition) -> ConditionType:  # noqa: PLR0911 - one line per kind of condition
    match given:
        case rest.FieldCondition():
            return _field_condition(given)
        case rest.IsEmptyCondition():
            return engine.IsEmptyCondition(given.is_empty.key)
        case rest.IsNullCondition():
            return engine.IsNullCondition(given.is_null.key)
        case rest.HasIdCondition():
            return engine.HasIdCondition({point_id(one) for one in given.has_id})
        case rest.HasVectorCondition():
            return engine.HasVectorCondition(given.has_vector)
        case rest.NestedCondition():
            return engine.NestedCondition(given.nested.key, engine_filter(given.nested.filter))
        case rest.Filter():
            return engine_filter(given)
        case rest.SliceCondition():
            raise WrongInput("slices are not served by the embedded Qdrant")
        case _:
            assert_never(given)


def _field_condition(given: rest.FieldCondition) -> engine.FieldCondition:
    if given.geo_bounding_box or given.geo_radius or given.geo_polygon:
        raise WrongInput("geo conditions are not served by the embedded Qdrant")
    counted = given.values_count
    return engine.FieldCondition(
        given.key,
        match=None if given.match is None else _match(given.match),
        range=None if given.range is None else _range(given.range),
        values_count=None if counted is None else engine.ValuesCount(**counted.model_dump()),
        is_empty=given.is_empty,
        is_null=given.is_null,
    )


# `Any`: each reads another attribute of another model.
_MATCHES: Final[dict[type[Any], Callable[[Any], MatchType]]] = {
    rest.MatchValue: lambda it: engine.MatchValue(it.value),
    rest.MatchAny: lambda it: engine.MatchAny(it.any),
    rest.MatchExcept: lambda it: engine.MatchExcept(it.except_),
    rest.MatchText: lambda it: engine.MatchText(it.text),
    rest.MatchTextAny: lambda it: engine.MatchTextAny(it.text_any),
    rest.MatchPhrase: lambda it: engine.MatchPhrase(it.phrase),
    rest.MatchPrefix: lambda it: engine.MatchPrefix(it.prefix),
    rest.MatchSubstring: lambda it: engine.MatchSubstring(it.substring),
}


def _match(given: object) -> MatchType:
    if isinstance(given, rest.MatchValue) and isinstance(given.value, bool):
        # The engine's binding reads True as 1 and would find nothing.
        raise WrongInput("matching a boolean is not served by the embedded Qdrant; store a keyword or an integer")
    return _MATCHES[type(given)](given)


def _range(given: rest.Range | rest.DatetimeRange) -> RangeType:
    if isinstance(given, rest.Range):
        return engine.RangeFloat(gte=given.gte, gt=given.gt, lte=given.lte, lt=given.lt)
    return engine.RangeDateTime(
        gte=_instant(given.gte), gt=_instant(given.gt), lte=_instant(given.lte), lt=_instant(given.lt)
    )


def _instant(given: date | None) -> str | None:
    return None if given is None else given.isoformat()
