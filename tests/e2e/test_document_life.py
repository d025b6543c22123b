"""A document over time: progress, new versions, and erasure that leaves nothing."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from sluice.db.session import tenant_session
from sluice.documents.models import CachedEmbedding, Chunk, DocumentVersion
from sluice.jobs.models import Job
from sluice.object_store import document_prefix
from tests.e2e.api import Api
from tests.e2e.running import Member, Stores


def indexed(stores: Stores, member: Member, document_id: str) -> dict[str, set[UUID]]:
    """The chunks of a document that each collection holds, with those of PostgreSQL."""
    with tenant_session(stores.sessions, member.tenant_id) as session:
        rows = set(session.scalars(select(Chunk.id).where(Chunk.document_id == document_id)))
    return {"postgres": rows} | {
        name: stores.index.chunk_ids(member.tenant_id, name, UUID(document_id)) for name in stores.index.collections()
    }


def draft(word: str) -> bytes:
    return f"In this draft of {uuid4().hex} the harbour master is called {word}.".encode()


def test_the_events_of_a_job_tell_its_steps_and_end_with_its_end(api: Api, source: str) -> None:
    job_id = api.accepted(source, "harbour.txt", draft("Anna"))["job_id"]

    events = api.watch(job_id)

    *progress, end = events
    assert {event.name for event in progress} <= {"job.progress"}
    assert end.name == "job.end"
    numbers = [int(event.id) for event in events]
    assert numbers == sorted(set(numbers))
    assert (end.data["state"], end.data["done"], end.data["total"]) == ("ready", 1, 1)
    assert end.data["elapsed_seconds"] >= 0
    assert end.data["finished_at"]
    assert end.data["allowed_actions"] == []


def test_the_events_of_a_longer_job_show_what_is_done_of_how_much(api: Api, source: str) -> None:
    sentences = " ".join(f"Sentence {n} of {uuid4().hex} says something of its own." for n in range(400))
    job_id = api.accepted(source, "long.txt", sentences.encode())["job_id"]

    events = api.watch(job_id)

    embedding = [event.data for event in events if event.data["step"] == "embed" and event.data["total"]]
    assert embedding
    assert [step["done"] for step in embedding] == sorted(step["done"] for step in embedding)
    assert embedding[-1]["done"] == embedding[-1]["total"] > 20


def test_the_events_of_a_job_that_has_ended_are_its_end_alone(api: Api, source: str) -> None:
    job = api.ended(source, "harbour.txt", draft("Boris"))

    events = api.watch(job["id"])

    assert [event.name for event in events] == ["job.end"]


@pytest.mark.parametrize("last_seen", ["1", "0", "nonsense", "-1"])
def test_a_cut_stream_of_events_goes_on_after_the_last_one_seen(api: Api, source: str, last_seen: str) -> None:
    job_id = api.accepted(source, "harbour.txt", draft("Clara"))["job_id"]

    events = api.watch(job_id, last_event_id=last_seen)

    assert events[-1].name == "job.end"
    if last_seen.isdigit():
        assert all(int(event.id) > int(last_seen) for event in events)


def test_a_stream_that_has_seen_the_end_is_told_the_end_again_and_nothing_else(api: Api, source: str) -> None:
    job_id = api.accepted(source, "harbour.txt", draft("Dora"))["job_id"]
    last = api.watch(job_id)[-1]

    again = api.watch(job_id, last_event_id=last.id)

    assert again == [last]


def test_the_end_of_a_failed_job_says_why(api: Api, source: str) -> None:
    job_id = api.accepted(source, "blank.txt", b"  \n")["job_id"]

    end = api.watch(job_id)[-1]

    assert (end.name, end.data["state"], end.data["error"]["code"]) == ("job.end", "failed", "no_text")
    assert end.data["allowed_actions"] == ["retry"]


def test_a_job_that_has_not_changed_is_304(api: Api, source: str) -> None:
    job = api.ended(source, "harbour.txt", draft("Eve"))
    etag = api.http.get(f"/api/jobs/{job['id']}").headers["etag"]

    answer = api.http.get(f"/api/jobs/{job['id']}", headers={"If-None-Match": f'"other", {etag}'})

    assert (answer.status_code, answer.content) == (304, b"")


def test_a_new_version_takes_the_place_of_the_old_one_everywhere(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    first = api.ingested(source, "harbour.txt", draft("Fedor"))
    second = api.ingested(source, "harbour.txt", draft("Grigory"))

    assert second["id"] == first["id"]
    assert (first["version"]["number"], second["version"]["number"]) == (1, 2)
    (found,) = api.found(source, "harbour master")
    assert "Grigory" in found
    held = indexed(stores, editor, first["id"])
    assert len(held) == 3
    assert {frozenset(chunks) for chunks in held.values()} == {frozenset(held["postgres"])}
    assert len(held["postgres"]) == 1
    assert b"Grigory" in api.original(first["id"])


def test_content_that_comes_back_after_another_version_is_a_version_again(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    anna, boris = draft("Anna"), draft("Boris")

    documents = [api.ingested(source, "harbour.txt", content) for content in (anna, boris, anna)]

    assert len({document["id"] for document in documents}) == 1
    assert [document["version"]["number"] for document in documents] == [1, 2, 3]
    assert api.found(source, "harbour master") == [anna.decode()]
    held = indexed(stores, editor, documents[0]["id"])
    assert {frozenset(chunks) for chunks in held.values()} == {frozenset(held["postgres"])}


def test_an_external_id_makes_a_version_of_a_document_with_another_name(api: Api, source: str) -> None:
    first = api.ingested(source, "plan.txt", draft("Anna"), external_id="plan")
    second = api.ingested(source, "plan-final.txt", draft("Boris"), external_id="plan", tags=["final"])

    assert second["id"] == first["id"]
    assert (second["name"], second["tags"]) == ("plan-final.txt", ["final"])
    assert api.search(source, "harbour master", tags=["final"])["passages"][0]["document_name"] == "plan-final.txt"


def test_a_new_version_that_cannot_be_read_leaves_the_old_one_to_be_found(api: Api, source: str) -> None:
    api.ingested(source, "harbour.txt", draft("Anna"))

    failed = api.ended(source, "harbour.txt", b" \n ")

    document = api.document(failed["document_id"])
    assert (document["state"], document["searchable"], document["version"]["number"]) == ("failed", True, 2)
    assert "Anna" in api.found(source, "harbour master")[0]
    assert b"Anna" in api.original(document["id"])


def test_an_erased_document_is_gone_from_every_store_and_every_answer(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    document = api.ingested(source, "harbour.txt", draft("Anna"))
    answer = api.ask(source, "Who is the harbour master?")
    with tenant_session(stores.sessions, editor.tenant_id) as session:
        hashes = list(session.scalars(select(Chunk.text_hash).where(Chunk.document_id == document["id"])))

    receipt = api.http.delete(f"/api/documents/{document['id']}")

    assert receipt.json() == {"document_id": document["id"], "rows": 0, "points": 0, "objects": 0}
    assert api.found(source, "harbour master") == []
    assert set(map(len, indexed(stores, editor, document["id"]).values())) == {0}
    assert stores.objects.keys(document_prefix(editor.tenant_id, document["id"])) == []
    with tenant_session(stores.sessions, editor.tenant_id) as session:
        for table in (Chunk, DocumentVersion, Job):
            query = select(func.count()).select_from(table).where(table.document_id == document["id"])
            assert session.scalar(query) == 0
        cached = select(func.count()).select_from(CachedEmbedding).where(CachedEmbedding.text_hash.in_(hashes))
        assert session.scalar(cached) == 0
    for path in (f"/api/documents/{document['id']}", f"/api/jobs/{document['job_id']}"):
        assert api.http.get(path).status_code == 404
    reply = api.get(f"/api/conversations/{answer.the('message.start')['conversation_id']}")["messages"][1]
    assert answer.all("citation")
    assert reply["citations"] == []
    assert api.http.delete(f"/api/documents/{document['id']}").status_code == 404


def test_erasing_an_old_version_s_document_leaves_no_vector_of_its_old_text(
    api: Api, source: str, editor: Member, stores: Stores
) -> None:
    first = api.ingested(source, "harbour.txt", draft("Anna"))
    with tenant_session(stores.sessions, editor.tenant_id) as session:
        old = list(session.scalars(select(Chunk.text_hash).where(Chunk.document_id == first["id"])))
    api.ingested(source, "harbour.txt", draft("Boris"))

    api.http.delete(f"/api/documents/{first['id']}").raise_for_status()

    with tenant_session(stores.sessions, editor.tenant_id) as session:
        assert session.scalars(select(CachedEmbedding).where(CachedEmbedding.text_hash.in_(old))).all() == []


def test_the_bytes_of_an_erased_document_can_be_uploaded_again(api: Api, source: str) -> None:
    content = draft("Anna")
    first = api.ingested(source, "harbour.txt", content)
    api.http.delete(f"/api/documents/{first['id']}").raise_for_status()

    again = api.ingested(source, "harbour.txt", content)

    assert again["id"] != first["id"]
    assert again["version"]["number"] == 1
    assert api.found(source, "harbour master") == [content.decode()]


def test_erasing_one_document_leaves_the_text_that_another_shares_with_it(api: Api, source: str) -> None:
    content = draft("Anna")
    first = api.ingested(source, "harbour.txt", content)
    elsewhere = api.new_source()
    api.ingested(elsewhere, "harbour.txt", content)

    api.http.delete(f"/api/documents/{first['id']}").raise_for_status()

    assert api.found(elsewhere, "harbour master") == [content.decode()]
