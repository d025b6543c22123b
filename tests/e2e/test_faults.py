"""Parts that stop, die and come back: questions are still answered, and no document is lost, doubled or half there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID, uuid4

import pytest
from kombu.connection import Connection
from sqlalchemy import select

from infra.embedded.platform import Platform
from sluice.broker import QUEUES
from sluice.db.session import tenant_session
from sluice.documents.models import Chunk
from sluice.identity.roles import Role
from tests.e2e.api import Api, Json
from tests.e2e.running import SETTINGS, Join, Member, Stores, counted

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
def away(platform: Platform, name: str) -> Iterator[None]:
    """Without this part, which comes back whatever happens meanwhile."""
    platform.stop(name)
    try:
        yield
    finally:
        platform.start(name)


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
    for name in stores.index.collections():
        assert stores.index.chunk_ids(member.tenant_id, name, UUID(document["id"])) == expected, name
        assert stores.index.count_document(member.tenant_id, UUID(document["id"])) == 2 * len(expected)

    calm = api.ingested(api.new_source(), document["name"], content)
    with tenant_session(stores.sessions, member.tenant_id) as session:
        texts = session.scalars(select(Chunk.text).where(Chunk.document_id == calm["id"]).order_by(Chunk.ordinal))
        assert sorted(row.text for row in rows) == sorted(texts)


def spent_attempts(job: Json) -> int:
    """How many of its steps' attempts were blamed on the document."""
    most = 5
    return sum(most - (step["max_attempts"] - step["attempt"]) - 1 for step in job["steps"])


def test_without_the_vector_index_full_text_search_answers_and_says_so(
    platform: Platform, api: Api, source: str
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships every evening.")
    api.ingested(source, "корабли.txt", "Смотритель гавани считает корабли каждый вечер.".encode())
    api.ingested(source, "onions.txt", b"Simmer the onions until they are golden.")

    with away(platform, "qdrant"):
        english = api.search(source, "Who is counting ships?")
        russian = api.search(source, "Кто считал корабль?")
        nothing = api.search(source, "zebra chromodynamics")
        answer = api.ask(source, "Who is counting ships?")

    assert english["degraded"] == russian["degraded"] == ["vector_index"]
    assert [passage["document_name"] for passage in english["passages"]] == ["ships.txt"]
    assert [passage["document_name"] for passage in russian["passages"]] == ["корабли.txt"]
    assert english["passages"][0]["scores"].keys() == {"full_text"}
    assert nothing["passages"] == []
    assert answer.the("retrieval.result")["degraded"] == ["vector_index"]
    assert "counts the ships" in answer.text
    assert api.search(source, "Who is counting ships?")["degraded"] == []


def test_without_the_vector_index_a_document_is_not_erased_half_but_when_it_is_asked_again(
    platform: Platform, api: Api, source: str
) -> None:
    document = api.ingested(source, "ships.txt", b"The harbour master counts the ships every morning.")

    with away(platform, "qdrant"):
        refused = api.http.delete(f"/api/documents/{document['id']}")
        found = api.search(source, "harbour ships")["passages"]

    assert (refused.status_code, refused.json()["code"]) == (503, "vector_index_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert found == []
    receipt = api.http.delete(f"/api/documents/{document['id']}").json()
    assert (receipt["rows"], receipt["points"], receipt["objects"]) == (0, 0, 0)


def test_without_the_embedder_words_still_find_and_ingest_goes_on_when_it_is_back(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships every night.")
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        pass

    with away(platform, "emb"):
        found = api.search(source, "Who counts ships every night?")
        answer = api.ask(source, "Who counts ships every night?")
        waiting = api.wait_for(accepted["job_id"], lambda job: job["error"] is not None)
        time.sleep(OUTAGE_SECONDS)

    assert found["degraded"] == answer.the("retrieval.result")["degraded"] == ["dense"]
    assert [passage["document_name"] for passage in found["passages"]] == ["ships.txt"]
    assert "counts the ships every night" in answer.text
    assert waiting["error"]["code"] == "embedder_unavailable"
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)
    assert_whole(api, editor, stores, job, content)
    assert spent_attempts(job) == 0
    assert job["error"] is None


def test_without_the_model_a_question_ends_in_an_error_and_is_kept(platform: Platform, api: Api, source: str) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships at noon.")

    with away(platform, "llm"):
        answer = api.ask(source, "Who counts the ships at noon?")

    assert answer.names() == ["message.start", "retrieval.start", "retrieval.result", "error"]
    problem = answer.the("error")
    assert problem["status"] == 503
    assert {"type", "title", "detail", "code", "request_id"} <= problem.keys()
    question, reply = api.get(f"/api/conversations/{answer.the('message.start')['conversation_id']}")["messages"]
    assert question["text"] == "Who counts the ships at noon?"
    assert (reply["text"], reply["finish_reason"]) == ("", "error")
    again = api.ask(
        source, "Who counts the ships at noon?", conversation_id=answer.the("message.start")["conversation_id"]
    )
    assert "at noon" in again.text


def test_without_redis_people_sign_in_and_get_answers(
    platform: Platform, api: Api, source: str, join: Join, tenant_name: str
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships at dawn.")

    with away(platform, "redis"):
        newcomer = join(tenant_name, Role.VIEWER)
        answer = newcomer.api.ask(source, "Who counts the ships at dawn?")

    assert answer.the("message.end")["finish_reason"] == "stop"


def test_without_the_database_the_api_says_so_and_lives(platform: Platform, api: Api, source: str) -> None:
    with away(platform, "postgres"):
        answer = api.http.get("/api/sources")
        ready, alive = api.http.get("/readyz"), api.http.get("/healthz")

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert api.http.get(f"/api/sources/{source}").status_code == 200


def test_a_worker_killed_while_it_embeds_leaves_a_document_that_is_whole(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)

    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        platform.kill("worker")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert_whole(api, editor, stores, job, content)
    assert job["steps"][0]["attempt"] == 2


def test_a_worker_killed_while_it_embeds_a_long_document_in_parts_leaves_it_whole(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    sections = (f"# Ship {n}\n\nShip {n} of {uuid4().hex[:8]} left the harbour." for n in range(300))
    content = "\n\n".join(sections).encode()
    accepted = api.accepted(source, "ships.md", content)

    with in_the_middle_of_embedding(platform, api, accepted["job_id"]) as before:
        platform.kill("worker")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert before["total"] > 256
    assert [step["step"] for step in job["steps"]][-1] == "finalize"
    assert (job["done"], job["total"]) == (before["total"], before["total"])
    assert_whole(api, editor, stores, job, content)


def test_the_database_away_for_ten_seconds_loses_nothing(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        pass

    with away(platform, "postgres"):
        time.sleep(OUTAGE_SECONDS)
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert_whole(api, editor, stores, job, content)
    assert spent_attempts(job) == 0


def test_the_object_store_away_for_ten_seconds_loses_nothing(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle(tokens=1_000)
    with away(platform, "worker"):
        accepted = api.accepted(source, "chronicle.txt", content)
        platform.stop("s3")
    try:
        refused = api.upload(source, "other.txt", chronicle(tokens=100))
        waiting = api.wait_for(accepted["job_id"], lambda job: job["error"] is not None)
        time.sleep(OUTAGE_SECONDS)
    finally:
        platform.start("s3")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert (refused.status_code, refused.json()["code"]) == (503, "object_store_unavailable")
    assert waiting["error"]["code"] == "object_store_unavailable"
    assert_whole(api, editor, stores, job, content)
    assert spent_attempts(job) == 0
    assert api.get("/api/documents", source_id=source)["data"][0]["id"] == accepted["document_id"]


def test_the_broker_away_for_ten_seconds_loses_nothing(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    running, queued = chronicle(), chronicle(tokens=1_000)
    first = api.accepted(source, "running.txt", running)
    with in_the_middle_of_embedding(platform, api, first["job_id"]):
        pass

    with away(platform, "rabbitmq"):
        second = api.accepted(source, "queued.txt", queued)
        time.sleep(OUTAGE_SECONDS)
    jobs = [api.wait(accepted["job_id"], RECOVERY_SECONDS) for accepted in (first, second)]

    for job, content in zip(jobs, (running, queued), strict=True):
        assert_whole(api, editor, stores, job, content)


def test_messages_that_the_broker_lost_are_sent_again(
    platform: Platform, api: Api, source: str, variables: dict[str, str]
) -> None:
    with away(platform, "worker"):
        jobs = [api.accepted(source, f"{n}.txt", chronicle(tokens=100))["job_id"] for n in range(3)]
        assert lost_messages(variables, at_least=3) >= 3

    assert [api.wait(job, RECOVERY_SECONDS)["state"] for job in jobs] == ["ready"] * 3


def lost_messages(variables: dict[str, str], *, at_least: int) -> int:
    """Empty the queues, once so many messages are in them; how many were lost."""
    lost = 0
    deadline = time.monotonic() + 30
    with Connection(variables["SLUICE_BROKER_URL"], connect_timeout=10) as connection:
        channel = connection.channel()
        while lost < at_least and time.monotonic() < deadline:
            lost += sum(channel.queue_purge(queue) for queue in QUEUES)
            time.sleep(0.2)
    return lost


def test_a_worker_told_to_stop_gives_its_step_back(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        pass

    platform.restart("worker")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert_whole(api, editor, stores, job, content)


def test_a_worker_that_slept_past_its_lease_writes_nothing_afterwards(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    (metrics,) = [part.address.removesuffix("/metrics") for part in platform.status() if part.name == "worker"]
    before = counted(metrics, "sluice_fence_rejections_total")
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        sleepers = platform.pids("worker")
        for pid in sleepers:
            os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(float(SETTINGS["SLUICE_JOBS_LEASE_SECONDS"]) + 3)
        expired = api.job(accepted["job_id"])
    finally:
        for pid in sleepers:
            os.kill(pid, signal.SIGCONT)
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert expired["steps"][0]["state"] == "queued"
    assert counted(metrics, "sluice_fence_rejections_total") > before
    assert_whole(api, editor, stores, job, content)
    assert job["steps"][0]["attempt"] == 2


@pytest.mark.parametrize("name", ["api", "dispatcher", "emb", "llm"])
def test_a_killed_service_comes_back_and_the_platform_works_on(
    platform: Platform, api: Api, source: str, name: str
) -> None:
    (before, *_) = platform.pids(name)

    platform.kill(name)
    deadline = time.monotonic() + 60
    while platform.pids(name)[:1] in ([], [before]):
        assert time.monotonic() < deadline, f"{name} did not come back"
        time.sleep(0.05)
    platform.wait_ready(name)

    mark = uuid4().hex
    document = api.ingested(source, "note.txt", f"The mark of this note is {mark}.".encode())
    assert document["searchable"]
    assert mark in api.ask(source, "What is the mark of this note?").text
