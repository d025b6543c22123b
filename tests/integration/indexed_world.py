"""A tenant whose documents are indexed under two aliases, by workers' code on real stores and models that are fakes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select

from services.workers.lease import Keeper
from services.workers.liveness import Liveness
from services.workers.resources import Resources
from services.workers.steps import STEPS
from sluice.db.session import tenant_session
from sluice.documents.models import Chunk, Document, DocumentVersion, IndexedVersion, Source
from sluice.documents.upload import first_step
from sluice.ids import new_id
from sluice.jobs import claims, repository
from sluice.jobs.claims import Claim
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import JobState
from sluice.object_store import original_key
from sluice.retrieval.search import Search, dense_legs
from sluice.settings import (
    DatabaseSettings,
    EmbeddingClientSettings,
    FurtherModel,
    IngestSettings,
    JobSettings,
    RetrievalSettings,
)
from sluice.testing.embeddings import FakeEmbeddings
from tests.e2e.running import Stores

JOBS: Final = JobSettings(lease_seconds=60, doctor_grace_seconds=0)
RETRIEVAL: Final = RetrievalSettings()


@dataclass(frozen=True)
class IndexedWorld:
    """Documents of one tenant, on a queue that no worker consumes, under aliases that nobody else has."""

    stores: Stores
    tenant_id: UUID
    database_url: str
    mark: str = field(default_factory=lambda: uuid4().hex[:8])
    first: FakeEmbeddings = field(init=False)
    second: FakeEmbeddings = field(init=False)

    def __post_init__(self) -> None:
        for name, dimension in (("first", 32), ("second", 16)):
            alias = f"{name}-{self.mark}"
            fake = FakeEmbeddings(alias=alias, dimension=dimension, version=f"{name}-1-{self.mark}")
            object.__setattr__(self, name, fake)

    @property
    def aliases(self) -> tuple[str, str]:
        return f"first-{self.mark}", f"second-{self.mark}"

    def settings(self, *, aliases: int = 2) -> EmbeddingClientSettings:
        default, further = self.aliases
        more = {further: FurtherModel(languages=("en",), min_similarity=0.3)} if aliases > 1 else {}
        return EmbeddingClientSettings(url="http://127.0.0.1:9", alias=default, more_aliases=more)

    def resources(self, *, aliases: int = 2) -> Resources:
        """What a worker has that knows both aliases, or the first alone."""
        database = DatabaseSettings(url=self.database_url)
        liveness = Liveness(database)
        return Resources(
            sessions=self.stores.sessions,
            store=self.stores.objects,
            index=self.stores.index,
            embedders=dict(list(zip(self.aliases, (self.first, self.second), strict=True))[:aliases]),
            embedding=self.settings(aliases=aliases),
            jobs=JOBS,
            ingest=IngestSettings(),
            worker="test",
            liveness=liveness,
            keeper=Keeper(self.stores.sessions, JOBS, liveness),
        )

    def search(self, *, aliases: int = 2) -> Search:
        """What an API has that knows both aliases, or the first alone."""
        legs = dense_legs(
            dict(zip(self.aliases, (self.first, self.second), strict=True)), self.settings(aliases=aliases), RETRIEVAL
        )
        return Search(self.stores.sessions, self.stores.index, legs, RETRIEVAL)

    def upload(self, text: str) -> UUID:
        """A document whose job waits; its version."""
        content = text.encode()
        digest = hashlib.sha256(content).hexdigest()
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            source = Source(name=f"Source {uuid4().hex}")
            session.add(source)
            session.flush()
            document = Document(source_id=source.id, external_id="a.txt", name="a.txt")
            session.add(document)
            session.flush()
            version_id = new_id()
            key = original_key(self.tenant_id, document.id, version_id, digest)
            self.stores.objects.put(key, io.BytesIO(content), "text/plain")
            version = DocumentVersion(
                id=version_id,
                document_id=document.id,
                source_id=source.id,
                number=1,
                content_hash=digest,
                size=len(content),
                mime="text/plain",
                object_key=key,
            )
            session.add(version)
            session.flush()
            job = Job(
                kind="ingest", document_id=document.id, version_id=version_id, source_id=source.id,
                state=JobState.QUEUED,
            )  # fmt: skip
            repository.submit(session, job, first_step(version, "ingest", self._queue, JOBS))
        return version_id

    def claim(self, version_id: UUID) -> Claim:
        """The right to read the version, whoever had it."""
        query = select(JobStep).join(Job, Job.id == JobStep.job_id).where(Job.version_id == version_id)
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            step = session.scalars(query).one()
            step.state = JobState.QUEUED
            step.run_after = step.created_at
            session.flush()
            claim = claims.claim(session, step.id, worker="test", settings=JOBS)
        assert claim is not None
        return claim

    def ingest(self, version_id: UUID, *, aliases: int = 2) -> None:
        """Read the version and have it shown."""
        self.run(self.claim(version_id), aliases=aliases)

    def ingested(self, text: str, *, aliases: int = 2) -> UUID:
        version_id = self.upload(text)
        self.ingest(version_id, aliases=aliases)
        return version_id

    def run(self, claim: Claim, *, aliases: int = 2) -> None:
        it = self.resources(aliases=aliases)
        with it.keeper.keep(claim) as lease:
            STEPS[claim.step](it, claim, lease)

    def doctor(self, *, repair: bool = False, aliases: int = 2) -> dict[str, int]:
        """What is wrong with the index, once it was mended if that was asked for."""
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            job = Job(kind="doctor", options={"repair": repair}, state=JobState.QUEUED)
            step = JobStep(
                step="doctor", queue=self._queue, max_attempts=3, idempotency_key=uuid4().bytes * 2, checkpoint={}
            )
            repository.submit(session, job, step)
            claim = claims.claim(session, step.id, worker="test", settings=JOBS)
            job_id = job.id
        assert claim is not None
        self.run(claim, aliases=aliases)
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            result = repository.get(session, job_id).result
        assert result is not None
        return {kind: number for kind, number in result["qdrant"].items() if number}

    def points(self, version_id: UUID) -> dict[str, int]:
        """How many points each collection of ours has of the version, and the lexical one."""
        document_id = self.document_of(version_id)
        names = [name for name in self.stores.index.collections() if self.mark in name] + [self.stores.index.lexical]
        found = {name: len(self.stores.index.chunk_ids(self.tenant_id, name, document_id)) for name in names}
        return {name.removesuffix(f"-{self.mark}"): number for name, number in found.items()}

    def collection(self, alias: str, version: str) -> str:
        return f"chunks_{alias}_{version}"

    def chunks(self, version_id: UUID) -> Sequence[Chunk]:
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            found = session.scalars(select(Chunk).where(Chunk.version_id == version_id)).all()
            session.expunge_all()
            return found

    def noted(self, version_id: UUID) -> dict[str, str]:
        """By which version of a model each alias is said to have the version."""
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            rows = session.scalars(select(IndexedVersion).where(IndexedVersion.version_id == version_id)).all()
            return {row.alias: row.model_version for row in rows}

    def document_of(self, version_id: UUID) -> UUID:
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            return session.scalars(select(DocumentVersion.document_id).where(DocumentVersion.id == version_id)).one()

    def is_shown(self, version_id: UUID) -> bool:
        with tenant_session(self.stores.sessions, self.tenant_id) as session:
            query = select(Document.id).where(Document.active_version_id == version_id)
            return session.scalars(query).one_or_none() is not None

    def models(self) -> dict[str, str]:
        """The version of the model that each alias means now."""
        return {
            alias: fake.model().version for alias, fake in zip(self.aliases, (self.first, self.second), strict=True)
        }

    def forget(self) -> None:
        """Remove the collections that only we have."""
        for name in self.stores.index.collections():
            if self.mark in name:
                self.stores.index._client.delete_collection(name)

    @property
    def _queue(self) -> str:
        return f"test.{self.mark}"


def sentences(subject: str, number: int = 60) -> str:
    """A text of a few chunks."""
    return " ".join(f"In year {n} the keeper of {subject} wrote down {n} names." for n in range(number))
