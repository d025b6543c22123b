"""Ways to take a part of the platform away, and how to tell that a document came through it whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import select

from infra.embedded.platform import Platform
from sluice.db.session import tenant_session
from sluice.documents.models import Chunk
from tests.e2e.api import Api, Json
from tests.e2e.running import Member, Stores

OUTAGE_SECONDS: Final = 10
# Longer than any lease, sweep and back-off together, even on a busy machine.
RECOVERY_SECONDS: Final = 150
TOKENS_OF_A_FILE: Final = 6_000
SENTENCE: Final = "In year {n} the harbour master {mark} counted {n} ships and wrote their names down."


def chronicle(mark: str | None = None, tokens: int = TOKENS_OF_A_FILE) -> bytes:
    """A text of some thirty chunks that nobody has embedded yet."""
    mark = mark or uuid4().hex[:8]
    return " ".join(SENTENCE.format(n=n, mark=mark) for n in range(tokens // 25)).encode()


@contextmanager
def frozen(platform: Platform, name: str) -> Iterator[None]:
    """With this part standing still: what waits for it goes on waiting."""
    pids = platform.pids(name)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def ships(number: int = 600) -> bytes:
    """A long document of which each section is a chunk."""
    sections = (f"# Ship {n}\n\nShip {n} of {uuid4().hex[:8]} left the harbour." for n in range(number))
    return "\n\n".join(sections).encode()


@contextmanager
def in_the_middle_of_embedding(platform: Platform, api: Api, job_id: str) -> Iterator[Json]:
    """The job, some of whose chunks are in the index and some are not; it gets no further inside the block."""
    api.wait_for(job_id, lambda job: job["step"] == "embed" and job["done"] > 0, RECOVERY_SECONDS)
    with frozen(platform, "emb"):
        job = api.job(job_id)
        assert job["state"] == "running"
        assert 0 < job["done"] < job["total"]
        yield job


def assert_whole(api: Api, member: Member, stores: Stores, job: Json, content: bytes) -> None:
    """The job is ready, and its document is in every store exactly as a calm run leaves it."""
    assert job["state"] == "ready", job
    document = api.document(job["document_id"])
    with tenant_session(stores.sessions, member.tenant_id) as session:
        rows = session.execute(select(Chunk.id, Chunk.text).where(Chunk.document_id == document["id"])).all()
    expected = {row.id for row in rows}
    assert len(expected) == len(rows) == document["version"]["chunks"]
    document_id = UUID(document["id"])
    held = {name: stores.index.chunk_ids(member.tenant_id, name, document_id) for name in stores.index.collections()}
    # Of all collections, those of former models included, the dense and the lexical one hold it, and nothing else.
    assert [ids for ids in held.values() if ids] == [expected, expected], {name: len(ids) for name, ids in held.items()}
    assert stores.index.count_document(member.tenant_id, document_id) == 2 * len(expected)

    calm = api.ingested(api.new_source(), document["name"], content)
    with tenant_session(stores.sessions, member.tenant_id) as session:
        texts = session.scalars(select(Chunk.text).where(Chunk.document_id == calm["id"]).order_by(Chunk.ordinal))
        assert sorted(row.text for row in rows) == sorted(texts)


def spent_attempts(job: Json) -> int:
    """How many of its steps' attempts were blamed on the document."""
    most = 5
    return sum(most - (step["max_attempts"] - step["attempt"]) - 1 for step in job["steps"])
