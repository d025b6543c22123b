"""What every task needs, made once per process, when the first task of that process asks for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer

from services.workers.lease import Keeper
from services.workers.liveness import Liveness
from sluice.db.session import Sessions, create_sessions
from sluice.embedding_client import EmbeddingClient, embedding_clients
from sluice.object_store import ObjectStore, S3ObjectStore
from sluice.retrieval.lexical import TOKENIZER_VERSION
from sluice.settings import (
    DatabaseSettings,
    EmbeddingClientSettings,
    IngestSettings,
    JobSettings,
    ObjectStoreSettings,
    VectorIndexSettings,
)
from sluice.vector_index import VectorIndex
from sluice.vector_points import DenseCollection


@dataclass(frozen=True)
class Resources:
    """The stores and services that work is done with."""

    sessions: Sessions
    store: ObjectStore
    index: VectorIndex
    embedders: Mapping[str, EmbeddingClient]
    """One for each alias that documents are indexed under, the default one first."""
    embedding: EmbeddingClientSettings
    jobs: JobSettings
    ingest: IngestSettings
    worker: str
    liveness: Liveness
    keeper: Keeper

    def dense_collections(self) -> list[DenseCollection]:
        """Where vectors of the models that EMB serves now belong: one for each alias, the default one's first."""
        models = [embedder.model() for embedder in self.embedders.values()]
        return [DenseCollection(model.alias, model.version, model.dimension) for model in models]

    def ask_for_models(self) -> None:
        """Have `dense_collections` say what EMB serves now: for work that is to be done with today's models."""
        for embedder in self.embedders.values():
            embedder.ask_again()

    def tokenizer(self) -> Tokenizer:
        """The default model's own tokenizer, so that a chunk's size is what that model will see."""
        return _load_tokenizer(self.embedders[self.embedding.alias].tokenizer())


@cache
def _load_tokenizer(content: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@cache
def resources() -> Resources:
    """The resources of this process. Made late: connections must not be shared over a fork."""
    embedding = EmbeddingClientSettings.from_environment()
    database = DatabaseSettings.from_environment()
    sessions = create_sessions(database)
    jobs = JobSettings.from_environment()
    liveness = Liveness(database)
    return Resources(
        sessions=sessions,
        store=S3ObjectStore(ObjectStoreSettings.from_environment()),
        index=VectorIndex(VectorIndexSettings.from_environment(), TOKENIZER_VERSION),
        embedders=embedding_clients(embedding),
        embedding=embedding,
        jobs=jobs,
        ingest=IngestSettings.from_environment(),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        liveness=liveness,
        keeper=Keeper(sessions, jobs, liveness),
    )
