"""Vectors and points: how a collection stores them, and what a point to be stored must look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import qdrant_edge as engine
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.conditions import point_id
from infra.embedded.qdrant_server.refusals import BadValue, WrongInput

# Qdrant's defaults; one indexing thread leaves the other cores to the embedding model.
HNSW_DEFAULTS: Final = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 1}


@dataclass(frozen=True)
class VectorSpace:
    """The vectors that points of a collection may have."""

    dense: Mapping[str, rest.VectorParams]
    sparse: Mapping[str, rest.SparseVectorParams]

    @classmethod
    def of(cls, definition: rest.CreateCollection) -> Self:
        """The space that the definition of a collection asks for; an unnamed vector has the name ''."""
        dense = definition.vectors or {}
        return cls({"": dense} if isinstance(dense, rest.VectorParams) else dense, definition.sparse_vectors or {})

    def check(self, name: str, vector: object) -> None:
        """Refuse a vector that does not fit.

        The engine would refuse it as well, but only after its log has it: a restart would then bring back half a point.
        """
        if isinstance(vector, rest.SparseVector):
            if name not in self.sparse:
                raise WrongInput(f"Not existing vector name error: {name}")
            if len(vector.indices) != len(vector.values):
                raise BadValue("vector.values: must be the same length as indices")
            if len(set(vector.indices)) != len(vector.indices):
                raise BadValue("vector.indices: must be unique")
            return
        if name not in self.dense:
            raise WrongInput(f"Not existing vector name error: {name}")
        if not isinstance(vector, list) or not all(isinstance(value, float) for value in vector):
            raise WrongInput(f"vector {name}: the embedded Qdrant stores lists of numbers and sparse vectors only")
        size = self.dense[name].size
        if len(vector) != size:
            raise WrongInput(f"Vector dimension error: expected dim: {size}, got {len(vector)}")


def engine_config(definition: rest.CreateCollection) -> engine.EdgeConfig:
    """How the engine shall store the collection."""
    space = VectorSpace.of(definition)
    return engine.EdgeConfig(
        vectors={name: _dense_params(params) for name, params in space.dense.items()},
        sparse_vectors={name: _sparse_params(params) for name, params in space.sparse.items()},
        on_disk_payload=definition.on_disk_payload,
        hnsw_config=engine.HnswIndexConfig(**hnsw_settings(definition)),
    )


def hnsw_settings(definition: rest.CreateCollection) -> dict[str, Any]:
    """The settings of the graph: what the definition says, else Qdrant's defaults."""
    asked = definition.hnsw_config
    return HNSW_DEFAULTS | (asked.model_dump(include={*HNSW_DEFAULTS, "payload_m"}, exclude_none=True) if asked else {})


def _dense_params(params: rest.VectorParams) -> engine.EdgeVectorParams:
    if params.multivector_config or params.quantization_config:
        raise WrongInput("multivectors and quantization are not served by the embedded Qdrant")
    return engine.EdgeVectorParams(
        params.size, getattr(engine.Distance, params.distance.value.capitalize()), on_disk=params.on_disk
    )


def _sparse_params(params: rest.SparseVectorParams) -> engine.EdgeSparseVectorParams:
    return engine.EdgeSparseVectorParams(
        modifier=engine.Modifier.Idf if params.modifier == rest.Modifier.IDF else None,
        on_disk=params.index.on_disk if params.index else None,
        full_scan_threshold=params.index.full_scan_threshold if params.index else None,
    )


def engine_points(given: rest.PointsList | rest.PointsBatch, space: VectorSpace) -> list[engine.Point]:
    """The points of an upsert, each checked against the space."""
    points = _rows(given.batch) if isinstance(given, rest.PointsBatch) else iter(given.points)
    return [engine.Point(point_id(one.id), _named_vectors(one.vector, space), one.payload) for one in points]


def _rows(batch: rest.Batch) -> Iterator[rest.PointStruct]:
    named: dict[str, list[Any]] = batch.vectors if isinstance(batch.vectors, dict) else {"": batch.vectors}
    columns = [*named.values(), *([batch.payloads] if batch.payloads is not None else [])]
    if any(len(column) != len(batch.ids) for column in columns):
        raise BadValue("batch: number of ids, vectors and payloads must be the same")
    for row, given_id in enumerate(batch.ids):
        yield rest.PointStruct(
            id=given_id,
            vector={name: column[row] for name, column in named.items()},
            payload=batch.payloads[row] if batch.payloads is not None else None,
        )


def _named_vectors(given: Any, space: VectorSpace) -> dict[str, engine.NamedVector]:
    named = given if isinstance(given, dict) else {"": given}
    for name, vector in named.items():
        space.check(name, vector)
    return {name: engine_vector(vector) for name, vector in named.items()}


def engine_vector(vector: Any) -> engine.NamedVector:
    """One dense or sparse vector, as the engine takes it."""
    if isinstance(vector, rest.SparseVector):
        return engine.SparseVector(vector.indices, vector.values)
    if isinstance(vector, list):
        return vector
    raise WrongInput("the embedded Qdrant takes lists of numbers and sparse vectors only")
