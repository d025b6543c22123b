"""What the engine found, as the JSON that Qdrant answers with."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import qdrant_edge as engine


def scored_point(found: engine.ScoredPoint) -> dict[str, Any]:
    """A hit of a search."""
    return {"version": found.version, "score": found.score, **record(found)}


def record(found: engine.Record | engine.ScoredPoint) -> dict[str, Any]:
    """A stored point, with as much of it as was asked for."""
    shown: dict[str, Any] = {"id": json_id(found.id)}
    if found.payload is not None:
        shown["payload"] = found.payload
    if found.vector is not None:
        shown["vector"] = _vectors(found.vector)
    if found.order_value is not None:
        shown["order_value"] = found.order_value
    return shown


def json_id(given: int | UUID | str) -> int | str:
    """A point's id: a number, or a UUID in its usual spelling."""
    return given if isinstance(given, int) else str(given)


def _vectors(given: engine.Vector) -> Any:
    return {name: _vector(one) for name, one in given.items()} if isinstance(given, dict) else given


def _vector(given: engine.NamedVector) -> Any:
    return {"indices": given.indices, "values": given.values} if isinstance(given, engine.SparseVector) else given
