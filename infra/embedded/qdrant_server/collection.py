"""One collection: its points in a folder, written and read through Qdrant's engine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Final
from uuid import uuid4

import qdrant_edge as engine
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server import answers, payload_indexes
from infra.embedded.qdrant_server.refusals import Refusal, engine_refusals, no_such_collection
from infra.embedded.qdrant_server.vectors import VectorSpace, engine_config, hnsw_settings

# Below this an exact search takes about a millisecond, and a graph would cost more than it saves.
OPTIMIZE_AFTER_POINTS: Final = 20_000
_OPTIMIZE_AFTER_SHARE: Final = 0.2

_log = logging.getLogger(__name__)


class Collection:
    """Points that survive the process: an update is in the engine's log before its call returns.

    One lock for all calls costs nothing, because the engine holds the interpreter's lock in each of them.
    """

    def __init__(self, name: str, folder: Path, definition: rest.CreateCollection, shard: engine.EdgeShard) -> None:
        self.name = name
        self.folder = folder
        self.definition = definition
        self.space = VectorSpace.of(definition)
        self._shard: engine.EdgeShard | None = shard
        self._lock = Lock()
        self._operations = 0
        self._unflushed = False
        self._since_branch: list[engine.UpdateOperation] | None = None
        info = shard.info()
        self._changed_points = max(0, info.points_count - info.indexed_vectors_count)

    @classmethod
    def create(cls, name: str, folder: Path, definition: rest.CreateCollection) -> Collection:
        """A new, empty collection in this folder, on disk when this returns."""
        with engine_refusals():
            config = engine_config(definition)
            folder.mkdir(parents=True)
            shard = engine.EdgeShard.create(str(folder), config)
            shard.flush()
        return cls(name, folder, definition, shard)

    @classmethod
    def open(cls, name: str, folder: Path, definition: rest.CreateCollection) -> Collection:
        """The collection as its folder has it, with the updates that only its log had."""
        return cls(name, folder, definition, engine.EdgeShard.load(str(folder)))

    def update(self, operation: engine.UpdateOperation, points: int = 0) -> int:
        """Carry out the operation, which changes about so many points; its number."""
        with self._lock:
            shard = self._opened()
            if self._since_branch is not None:
                self._since_branch.append(operation)
            self._unflushed = True
            self._changed_points += points
            with engine_refusals():
                shard.update(operation)
            self._operations += 1
            return self._operations

    def query(self, requests: list[engine.QueryRequest]) -> list[list[dict[str, Any]]]:
        """The hits of each request, best first."""
        with self._lock, engine_refusals():
            found = self._opened().query_batch(engine.QueryBatchRequest(requests))
        return [[answers.scored_point(hit) for hit in hits] for hits in found]

    def scroll(self, request: engine.ScrollRequest) -> dict[str, Any]:
        """A page of points in the order of their ids (or as asked), and where the next page begins."""
        with self._lock, engine_refusals():
            found, following = self._opened().scroll(request)
        return {
            "points": [answers.record(one) for one in found],
            "next_page_offset": None if following is None else answers.json_id(following),
        }

    def retrieve(
        self, ids: list[engine.PointId], payload: engine.WithPayloadType, vector: engine.WithVectorType | None
    ) -> list[dict[str, Any]]:
        """Those of the points that exist."""
        with self._lock, engine_refusals():
            found = self._opened().retrieve(ids, with_payload=payload, with_vector=vector)
        return [answers.record(one) for one in found]

    def count(self, request: engine.CountRequest) -> int:
        """How many points the filter lets through."""
        with self._lock, engine_refusals():
            return self._opened().count(request)

    def points(self) -> int:
        """How many points are stored."""
        with self._lock:
            return self._opened().info().points_count

    def describe(self) -> dict[str, Any]:
        """What `GET /collections/{name}` answers."""
        with self._lock:
            info = self._opened().info()
            optimizing = self._since_branch is not None
        params = self.definition.model_dump(
            mode="json", include={"vectors", "sparse_vectors", "on_disk_payload"}, exclude_none=True
        )
        return {
            "status": "yellow" if optimizing else "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "config": {
                "params": params,
                "hnsw_config": hnsw_settings(self.definition),
                "optimizer_config": {"default_segment_number": 0, "flush_interval_sec": 5},
            },
            "payload_schema": {field: payload_indexes.shown(index) for field, index in info.payload_schema.items()},
        }

    def flush(self) -> None:
        """Put what only the log has into the segments, so that the log stays short."""
        with self._lock:
            if self._unflushed and self._shard is not None:
                self._shard.flush()
                self._unflushed = False

    def close(self) -> None:
        """Flush, and let go of the folder."""
        with self._lock:
            if self._shard is not None:
                self._shard.flush()
                self._shard.close()
                self._shard = None

    def needs_optimizing(self) -> bool:
        """Whether so much was written since the last time that searches would gain from it."""
        with self._lock:
            if self._shard is None:
                return False
            share = _OPTIMIZE_AFTER_SHARE * self._shard.info().points_count
            return self._changed_points >= max(OPTIMIZE_AFTER_POINTS, share)

    def branch(self) -> Path:
        """A copy of the collection to work on, beside its folder; updates from now on are remembered for `adopt`."""
        copy = self.folder.with_name(str(uuid4()))
        with self._lock:
            self._opened().flush()
            shutil.copytree(self.folder, copy)
            self._since_branch = []
            self._changed_points = 0
        return copy

    def adopt(self, copy: Path, publish: Callable[[Path], None]) -> None:
        """Go on with the copy, brought up to date; `publish` must make the choice durable before the old one goes."""
        with self._lock:
            before = self._opened()
            shard = engine.EdgeShard.load(str(copy))
            for operation in self._since_branch or ():
                try:
                    with engine_refusals():
                        shard.update(operation)
                except Refusal as refusal:
                    _log.debug("refused again, as it was the first time: %s", refusal)
            shard.flush()
            publish(copy)
            old, self.folder, self._shard = self.folder, copy, shard
            self._since_branch = None
            before.close()
        shutil.rmtree(old)

    def abandon(self, copy: Path) -> None:
        """Forget the copy; nothing of the collection is lost with it."""
        with self._lock:
            self._since_branch = None
        shutil.rmtree(copy, ignore_errors=True)

    def _opened(self) -> engine.EdgeShard:
        if self._shard is None:
            raise no_such_collection(self.name)
        return self._shard
