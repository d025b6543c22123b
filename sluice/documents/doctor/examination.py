"""What every examination of the doctor is: a walk through one store, page by page, that can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from sluice.db.session import Sessions
from sluice.documents.models import Chunk, DocumentVersion
from sluice.object_store import ObjectStore
from sluice.settings import JobSettings
from sluice.vector_index import VectorIndex
from sluice.vector_points import DenseCollection

# Puts these chunks of a version into the index; whoever runs the doctor knows how.
Upsert = Callable[[DocumentVersion, list[Chunk]], None]


@dataclass(frozen=True)
class Patient:
    """A tenant's part of the stores, and how to mend it."""

    tenant_id: UUID
    sessions: Sessions
    store: ObjectStore
    index: VectorIndex
    dense: Sequence[DenseCollection]
    """Where the vectors of each embedding alias belong now."""
    settings: JobSettings
    upsert: Upsert

    @property
    def collections(self) -> list[str]:
        """The collections in which each shown chunk belongs."""
        return [*(dense.name for dense in self.dense), self.index.lexical]


def nothing() -> None:
    """Mend nothing."""


@dataclass(frozen=True)
class Look:
    """One page of an examination: what is wrong there, how to mend it, and where the next page begins."""

    wrong: list[str] = field(default_factory=list)
    after: str | None = None
    mend: Callable[[], None] = nothing


class Examination(Protocol):
    """One thing that may be wrong with one store."""

    @property
    def store(self) -> str:
        """The store that is held against PostgreSQL, or `postgres` itself."""

    @property
    def kind(self) -> str:
        """What is wrong: one word, the name of the count."""

    def look(self, patient: Patient, after: str | None) -> Look:
        """The page that begins after this place, or the first one."""
