"""What the vector index holds and what it finds, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


class SparseVector(Protocol):
    """Token ids and their weights."""

    @property
    def indices(self) -> Sequence[int]:
        """Ids of the tokens, 32 bits, each once."""

    @property
    def values(self) -> Sequence[float]:
        """The weight of each."""


@dataclass(frozen=True)
class DenseCollection:
    """The dense points of one model version. Vectors of different versions are never compared, so search names it."""

    alias: str
    model_version: str
    dimension: int

    @property
    def name(self) -> str:
        """The collection's own name."""
        return f"chunks_{self.alias}_{self.model_version}"

    @property
    def alias_name(self) -> str:
        """The name under which people find the collection of the version that is written now."""
        return f"chunks_{self.alias}"


@dataclass(frozen=True)
class ChunkPoint:
    """A chunk as the index sees it."""

    chunk_id: UUID
    source_id: UUID
    document_id: UUID
    version_id: UUID
    version: int
    page: int | None
    lang: str
    mime: str
    tags: list[str]
    updated_at: datetime
    dense: list[float]
    words: SparseVector
    grams: SparseVector


@dataclass(frozen=True)
class PassageFilter:
    """What a search is narrowed to. Within one field any value will do; all fields must agree."""

    source_ids: tuple[UUID, ...] = ()
    tags: tuple[str, ...] = ()
    langs: tuple[str, ...] = ()
    mimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hit:
    """A chunk that a leg of the search found, and the leg's own score."""

    chunk_id: UUID
    score: float


@dataclass(frozen=True)
class IndexedChunk:
    """A point as the index has it, whatever PostgreSQL knows of its chunk."""

    point_id: str
    chunk_id: UUID
    version_id: UUID
