"""Payload indexes: asked for by a type's name or by its parameters, shown the same way."""

from __future__ import annotations

from typing import Any, Final

import qdrant_edge as engine
from pydantic import BaseModel
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.refusals import WrongInput

_PARAMS: Final[dict[str, tuple[type[BaseModel], type[Any]]]] = {
    "keyword": (rest.KeywordIndexParams, engine.KeywordIndexParams),
    "integer": (rest.IntegerIndexParams, engine.IntegerIndexParams),
    "float": (rest.FloatIndexParams, engine.FloatIndexParams),
    "bool": (rest.BoolIndexParams, engine.BoolIndexParams),
    "datetime": (rest.DatetimeIndexParams, engine.DatetimeIndexParams),
    "uuid": (rest.UuidIndexParams, engine.UuidIndexParams),
}
# `memory` is a hint that the engine spells otherwise; its default is right here.
_NOT_CARRIED: Final = {"type", "memory"}


def engine_schema(given: rest.PayloadFieldSchema | None) -> Any:
    """The index to build, in the engine's words."""
    if given is None:
        raise WrongInput("field_schema is needed: the embedded Qdrant does not guess a field's type")
    if isinstance(given, rest.PayloadSchemaType):
        return getattr(engine.PayloadSchemaType, given.value.capitalize())
    kind = given.type.value
    if kind not in _PARAMS:
        raise WrongInput(f"parameters of a {kind} index are not served by the embedded Qdrant; give its name only")
    model, params = _PARAMS[kind]
    carried = {name: getattr(given, name) for name in model.model_fields if name not in _NOT_CARRIED}
    return params(**carried)


def shown(index: engine.PayloadIndexInfo) -> dict[str, Any]:
    """An index of a collection, as `GET /collections/{name}` shows it."""
    # The engine's enums print as `PayloadSchemaType.Keyword` and have no `name`.
    kind = str(index.data_type).rpartition(".")[2].lower()
    answer: dict[str, Any] = {"data_type": kind, "points": index.points}
    if index.params is not None and kind in _PARAMS:
        fields = _PARAMS[kind][0].model_fields
        values = {name: getattr(index.params, name) for name in fields if name not in _NOT_CARRIED}
        answer["params"] = {"type": kind} | {name: value for name, value in values.items() if value is not None}
    return answer
