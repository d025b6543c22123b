"""The oracle: what PostgreSQL, the broker and the vector store must look like once the faults are over.

It reads the stores themselves, with queries of its own, and computes what it expects from the uploaded texts alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sluice.documents.chunking import CHUNKER_VERSION
from sluice.ids import derived_id

if TYPE_CHECKING:
    from tests.chaos.lab import Customer, Lab, Upload

READY_ONLY = frozenset({"ready"})


@dataclass(frozen=True)
class Violation:
    """Something that must never be."""

    kind: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Point:
    """A point of a collection, as far as it says whose it is."""

    id: str
    chunk_id: UUID
    document_id: UUID


@dataclass(frozen=True)
class Rows:
    """All rows of one tenant that the job engine and ingest write, by table."""

    documents: Sequence[Any]
    versions: Sequence[Any]
    chunks: Sequence[Any]
    jobs: Sequence[Any]
    steps: Sequence[Any]
    attempts: Sequence[Any]
    outbox: Sequence[Any]
    dead_letters: Sequence[Any]


def verify(
    lab: Lab, customer: Customer, *, ends: Collection[str] = READY_ONLY, dead_letters: int = 0
) -> list[Violation]:
    """Everything that is wrong with what the customer uploaded; empty is a pass.

    `ends`: the states that its jobs may have ended in; `dead_letters`: how many rows of them there must be.
    """
    rows = read_rows(lab, customer.tenant_id)
    expected = {upload.document_id: _expected_chunks(lab, upload) for upload in customer.uploads}
    jobs = {job.id: job for job in rows.jobs}
    ready = {upload.document_id for upload in customer.uploads if _state(jobs, upload) == "ready"}
    return [
        *_documents(customer.uploads, rows, jobs, ends),
        *_chunks(customer.uploads, rows, expected, ready),
        *_points(lab, customer, expected, ready),
        *_jobs(rows),
        *_attempts(rows),
        *_outbox(rows),
        *_broker(lab),
        *_dead_letters(rows, dead_letters),
    ]


def read_rows(lab: Lab, tenant_id: UUID) -> Rows:
    """What PostgreSQL has of a tenant."""
    read = lab.database.records
    return Rows(
        documents=read("SELECT * FROM documents WHERE tenant_id = %(tenant)s", tenant=tenant_id),
        versions=read("SELECT * FROM document_versions WHERE tenant_id = %(tenant)s", tenant=tenant_id),
        chunks=read(
            "SELECT id, document_id, version_id, ordinal, text FROM chunks WHERE tenant_id = %(tenant)s "
            "ORDER BY document_id, ordinal",
            tenant=tenant_id,
        ),
        jobs=read("SELECT * FROM jobs WHERE tenant_id = %(tenant)s", tenant=tenant_id),
        steps=read("SELECT * FROM job_steps WHERE tenant_id = %(tenant)s", tenant=tenant_id),
        attempts=read("SELECT * FROM job_attempts WHERE tenant_id = %(tenant)s ORDER BY attempt", tenant=tenant_id),
        outbox=read("SELECT * FROM outbox WHERE tenant_id = %(tenant)s", tenant=tenant_id),
        dead_letters=read("SELECT * FROM dead_letters WHERE tenant_id = %(tenant)s", tenant=tenant_id),
    )


def _expected_chunks(lab: Lab, upload: Upload) -> dict[UUID, str]:
    digest = hashlib.sha256(upload.content).hexdigest()
    texts = lab.calm_reader.chunks(upload.content)
    return {derived_id(upload.document_id, digest, n, CHUNKER_VERSION): text for n, text in enumerate(texts)}


def _state(jobs: Mapping[UUID, Any], upload: Upload) -> str | None:
    job = jobs.get(upload.job_id)
    return job.state if job else None


def _documents(
    uploads: Sequence[Upload], rows: Rows, jobs: Mapping[UUID, Any], ends: Collection[str]
) -> Iterator[Violation]:
    documents = {document.id: document for document in rows.documents}
    versions = Counter(version.document_id for version in rows.versions)
    jobs_of = Counter(job.version_id for job in rows.jobs)
    for upload in uploads:
        document, job = documents.get(upload.document_id), jobs.get(upload.job_id)
        if document is None or job is None:
            yield Violation("lost", upload.name, "the upload was answered with 202, and there is no row of it")
            continue
        if job.state not in ends:
            yield Violation("lost", upload.name, f"its job is {job.state} ({job.error_code}: {job.error_detail})")
        if (document.active_version_id is not None) != (job.state == "ready"):
            yield Violation("torn", upload.name, f"job {job.state}, active version {document.active_version_id}")
        if versions[document.id] != 1:
            yield Violation("doubled", upload.name, f"{versions[document.id]} versions of one upload")
        if jobs_of[job.version_id] != 1:
            yield Violation("doubled", upload.name, f"{jobs_of[job.version_id]} jobs for one version")
    for extra in documents.keys() - {upload.document_id for upload in uploads}:
        yield Violation("doubled", documents[extra].name, "a document that no upload was answered with")


def _chunks(
    uploads: Sequence[Upload], rows: Rows, expected: Mapping[UUID, Mapping[UUID, str]], ready: Collection[UUID]
) -> Iterator[Violation]:
    found: dict[UUID, dict[UUID, str]] = defaultdict(dict)
    for chunk in rows.chunks:
        found[chunk.document_id][chunk.id] = chunk.text
    for upload in uploads:
        if upload.document_id not in ready:
            continue
        wanted, got = expected[upload.document_id], found[upload.document_id]
        if wanted.keys() != got.keys():
            yield Violation("chunks", upload.name, f"PostgreSQL has {len(got)} chunks, not the {len(wanted)} expected")
        elif wanted != got:
            yield Violation("chunks", upload.name, "a chunk's text is not what a calm run gives")


def _points(
    lab: Lab, customer: Customer, expected: Mapping[UUID, Mapping[UUID, str]], ready: Collection[UUID]
) -> Iterator[Violation]:
    collections = lab.points(customer.tenant_id)
    for prefix in ("chunks_", "lexical_"):
        if ready and not any(name.startswith(prefix) for name in collections):
            yield Violation("points", prefix, "there is no such collection")
    for name, points in collections.items():
        of_document: dict[UUID, list[UUID]] = defaultdict(list)
        for point in points:
            of_document[point.document_id].append(point.chunk_id)
        for document_id in ready:
            got, wanted = of_document[document_id], expected[document_id].keys()
            if len(got) != len(wanted) or set(got) != wanted:
                detail = f"{len(got)} points of {len(set(got))} chunks, {len(set(got) - wanted)} of them strange"
                yield Violation("points", f"{name}/{document_id}", f"{detail}; {len(wanted)} expected")
        for stranger in of_document.keys() - expected.keys():
            yield Violation("points", f"{name}/{stranger}", "points of a document that there is not")


def _jobs(rows: Rows) -> Iterator[Violation]:
    steps_of = defaultdict(list)
    for step in rows.steps:
        steps_of[step.job_id].append(step)
    for job in rows.jobs:
        subject, steps = f"job {job.id}", steps_of[job.id]
        if job.state in ("queued", "running"):
            yield Violation(
                "stuck", subject, f"{job.state} in {job.step}, {[(s.step, s.part, s.state) for s in steps]}"
            )
            continue
        if job.finished_at is None:
            yield Violation("torn", subject, f"{job.state} without a time of its end")
        if job.state != "ready" and job.document_id is not None and any(step.state == "running" for step in steps):
            yield Violation("stuck", subject, f"{job.state}, and a step of it runs")
        if job.state == "ready" and any(step.state != "ready" for step in steps):
            yield Violation("torn", subject, f"ready, but {[(s.step, s.part, s.state) for s in steps]}")
        parts = sum(step.step == "embed" and step.state == "ready" for step in steps)
        if job.state == "ready" and not job.parts_total == job.parts_done == parts:
            yield Violation("torn", subject, f"{job.parts_done} of {job.parts_total} parts counted, {parts} done")


def _attempts(rows: Rows) -> Iterator[Violation]:
    attempts_of = defaultdict(list)
    for attempt in rows.attempts:
        attempts_of[attempt.step_id].append(attempt)
    for step in rows.steps:
        attempts, subject = attempts_of[step.id], f"step {step.id}"
        if [attempt.attempt for attempt in attempts] != list(range(1, step.attempt + 1)):
            numbers = [attempt.attempt for attempt in attempts]
            yield Violation("attempts", subject, f"{numbers} are written down, the step counts {step.attempt}")
        for attempt in attempts:
            if attempt.ended_at is None or attempt.outcome is None:
                yield Violation("attempts", subject, f"attempt {attempt.attempt} never ended")
        effective = [attempt.attempt for attempt in attempts if attempt.outcome == "ready"]
        if effective != ([step.attempt] if step.state == "ready" else []):
            yield Violation("attempts", subject, f"{step.state}, attempts {effective} of {step.attempt} had an effect")


def _outbox(rows: Rows) -> Iterator[Violation]:
    for message in rows.outbox:
        if message.published_at is None:
            yield Violation("outbox", f"message {message.id}", f"never published, due {message.available_at}")


def _broker(lab: Lab) -> Iterator[Violation]:
    for queue, number in lab.broker.waiting().items():
        if number < 0:
            yield Violation("broker", queue, "the queue is gone")
        elif number:
            yield Violation("broker", queue, f"{number} messages that nobody takes")


def _dead_letters(rows: Rows, expected: int) -> Iterator[Violation]:
    if len(rows.dead_letters) != expected:
        reasons = Counter((letter.origin, letter.reason) for letter in rows.dead_letters)
        yield Violation("dead letters", "all", f"{len(rows.dead_letters)} of them, not {expected}: {dict(reasons)}")
