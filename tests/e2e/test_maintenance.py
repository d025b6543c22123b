"""Maintenance as an administrator sees it: documents read again, stores compared and mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from infra.embedded.platform import Platform
from sluice.db.session import tenant_session
from sluice.documents.models import Chunk, DocumentVersion
from sluice.documents.reread import reread
from sluice.identity.roles import Role
from sluice.jobs.models import Job
from sluice.settings import JobSettings
from tests.e2e.api import Json
from tests.e2e.faults import chronicle
from tests.e2e.running import Join, Member, Stores

SETTINGS = JobSettings()


@pytest.fixture
def member(join: Join) -> Member:
    """The administrator of a tenant that is there for one test."""
    return join(f"Maintained {uuid4().hex}", Role.ADMIN)


def draft(word: str) -> bytes:
    return f"In this draft of {uuid4().hex} the harbour master is called {word}.".encode()


def started(member: Member, path: str, **body: object) -> Json:
    response = member.api.http.post(path, json=body or None)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/api/jobs/{response.json()['id']}"
    return response.json()  # type: ignore[no-any-return] # JSON


def examined(member: Member, *, repair: bool = False) -> Json:
    job = member.api.wait(started(member, "/api/admin/doctor", repair=repair)["id"])
    assert job["state"] == "ready", job
    return job["result"]  # type: ignore[no-any-return] # JSON


def counts(result: Json) -> dict[str, int]:
    """What is wrong, without what is not."""
    return {
        f"{store}.{kind}": number
        for store in ("qdrant", "s3", "postgres")
        for kind, number in result[store].items()
        if number
    }


def read_again(member: Member, stores: Stores, document_id: str, **options: object) -> Json:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version = session.scalars(
            select(DocumentVersion)
            .where(DocumentVersion.document_id == UUID(document_id))
            .order_by(DocumentVersion.number.desc())
        ).first()
        assert version is not None
        job_id = reread(session, version.id, kind="ingest", options=options, settings=SETTINGS).id
    return member.api.wait(str(job_id))


def points(stores: Stores, member: Member, document_id: str) -> dict[str, set[UUID]]:
    held = {
        name: stores.index.chunk_ids(member.tenant_id, name, UUID(document_id)) for name in stores.index.collections()
    }
    return {name: ids for name, ids in held.items() if ids}


def chunk_rows(stores: Stores, member: Member, document_id: str) -> set[UUID]:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        return set(session.scalars(select(Chunk.id).where(Chunk.document_id == UUID(document_id))))


def assert_agreed(stores: Stores, member: Member, document_id: str) -> None:
    rows = chunk_rows(stores, member, document_id)
    assert rows
    assert list(points(stores, member, document_id).values()) == [rows, rows]


def test_a_document_read_again_is_a_new_version_of_the_same_bytes(member: Member, stores: Stores) -> None:
    source = member.api.new_source()
    content = draft("Anna")
    document = member.api.ingested(source, "handbook.txt", content)

    job = read_again(member, stores, document["id"])

    assert job["state"] == "ready", job
    after = member.api.document(document["id"])
    assert (after["version"]["number"], after["state"], after["searchable"]) == (2, "ready", True)
    assert_agreed(stores, member, document["id"])
    assert "Anna" in member.api.found(source, "harbour master")[0]
    again = member.api.upload(source, "handbook.txt", content)
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert member.api.original(document["id"]) == content
    assert counts(examined(member)) == {}


def test_a_document_is_found_while_it_is_read_again_and_when_that_fails(member: Member, stores: Stores) -> None:
    source = member.api.new_source()
    document = member.api.ingested(source, "handbook.html", b"<p>" + draft("Boris") + b"</p>")
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version = session.scalars(select(DocumentVersion)).one()
        key, version.object_key = version.object_key, "tenant/nowhere"

    job = read_again(member, stores, document["id"], parser="plain")

    assert (job["state"], job["error"]["code"]) == ("failed", "object_not_found")
    with tenant_session(stores.sessions, member.tenant_id) as session:
        session.execute(update(DocumentVersion).values(object_key=key))
    after = member.api.document(document["id"])
    assert (after["state"], after["version"]["number"], after["searchable"]) == ("ready", 1, True)
    assert "Boris" in member.api.found(source, "harbour master")[0]


def test_a_failed_document_can_be_read_by_another_parser(member: Member, stores: Stores) -> None:
    source = member.api.new_source()
    hidden = b"<html><body><script>harbour master Clara</script></body></html>"
    failed = member.api.ended(source, "hidden.html", hidden)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "no_text")

    job = read_again(member, stores, failed["document_id"], parser="plain")

    assert job["state"] == "ready", job
    assert "Clara" in member.api.found(source, "harbour master")[0]
    assert member.api.document(failed["document_id"])["state"] == "ready"


def test_reading_again_what_is_being_read_again_joins_it(member: Member, stores: Stores) -> None:
    document = member.api.ingested(member.api.new_source(), "long.txt", chronicle())
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version_id = session.scalars(select(DocumentVersion.id)).one()
        first = reread(session, version_id, settings=SETTINGS).id
    with tenant_session(stores.sessions, member.tenant_id) as session:
        second = reread(session, version_id, settings=SETTINGS).id
        other = reread(session, version_id, options={"ocr": False}, settings=SETTINGS).id

    assert first == second != other
    assert {member.api.wait(str(each))["state"] for each in (first, other)} == {"ready"}
    assert member.api.document(document["id"])["version"]["number"] == 3
    assert_agreed(stores, member, document["id"])


@pytest.mark.parametrize("upload_first", [True, False])
def test_a_new_upload_wins_over_an_older_one_that_is_read_again(
    member: Member, stores: Stores, *, upload_first: bool
) -> None:
    source = member.api.new_source()
    document = member.api.ingested(source, "long.txt", chronicle("older"))
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version_id = session.scalars(select(DocumentVersion.id)).one()

    def read_the_old_one() -> str:
        with tenant_session(stores.sessions, member.tenant_id) as session:
            return str(reread(session, version_id, settings=SETTINGS).id)

    def upload_the_new_one() -> str:
        return str(member.api.accepted(source, "long.txt", chronicle("newer"))["job_id"])

    in_order: list[Callable[[], str]] = [upload_the_new_one, read_the_old_one]
    jobs = [begin() for begin in (in_order if upload_first else reversed(in_order))]

    assert {member.api.wait(job)["state"] for job in jobs} == {"ready"}
    assert "newer" in member.api.found(source, "who counted the ships")[0]
    assert_agreed(stores, member, document["id"])
    assert counts(examined(member)) == {}


def test_a_source_is_indexed_anew_by_jobs_that_name_their_parent(member: Member, stores: Stores) -> None:
    source = member.api.new_source()
    documents = [member.api.ingested(source, f"{n}.txt", draft(f"Number {n}")) for n in range(4)]
    member.api.ended(source, "empty.txt", b"\n \n")
    other = member.api.ingested(member.api.new_source(), "other.txt", draft("Other"))

    job = member.api.wait(started(member, f"/api/admin/sources/{source}:reindex")["id"])

    assert (job["state"], job["result"], job["done"], job["total"]) == ("ready", {"documents": 4}, 4, 4)
    children = children_of(member, stores, job["id"])
    assert len(children) == 4
    assert {member.api.wait(child)["state"] for child in children} == {"ready"}
    assert [member.api.document(each["id"])["version"]["number"] for each in documents] == [2] * 4
    assert member.api.document(other["id"])["version"]["number"] == 1
    for document in documents:
        assert_agreed(stores, member, document["id"])
    assert counts(examined(member)) == {}


def test_a_second_click_joins_the_job_of_the_first(member: Member, without_workers: None) -> None:
    source = member.api.new_source()
    path = f"/api/admin/sources/{source}:reindex"

    jobs = {started(member, path)["id"] for _ in range(2)}
    checkups = {started(member, "/api/admin/doctor", repair=True)["id"] for _ in range(2)}
    only_looks = started(member, "/api/admin/doctor", repair=False)["id"]

    assert (len(jobs), len(checkups)) == (1, 1)
    assert only_looks not in checkups


@pytest.fixture
def without_workers(platform: Platform) -> Iterator[None]:
    platform.stop("worker")
    yield
    platform.start("worker")


def children_of(member: Member, stores: Stores, job_id: str) -> list[str]:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        return [str(each) for each in session.scalars(select(Job.id).where(Job.parent_id == UUID(job_id)))]


def test_only_administrators_maintain(join: Join, tenant_name: str, editor: Member, source: str) -> None:
    for path, body in (("/api/admin/doctor", {}), (f"/api/admin/sources/{source}:reindex", None)):
        assert editor.api.http.post(path, json=body).status_code == 403


def test_the_source_of_another_tenant_is_not_found(member: Member, source: str) -> None:
    response = member.api.http.post(f"/api/admin/sources/{source}:reindex")

    assert (response.status_code, response.json()["code"]) == (404, "source_not_found")
