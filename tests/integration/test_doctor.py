"""The doctor: whatever the stores do not agree on is counted, and mended when it can be."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, insert, select, update

from infra.embedded.platform import Platform
from sluice.db.session import tenant_session
from sluice.documents.doctor.examination import Patient
from sluice.documents.doctor.objects import LostOriginals, OrphanedObjects
from sluice.documents.doctor.points import MissingPoints, OrphanedPoints
from sluice.documents.models import Chunk, Document, DocumentVersion, Upload
from sluice.embedding_client import HttpEmbeddingClient
from sluice.identity.roles import Role
from sluice.jobs import actions
from sluice.jobs.models import Job
from sluice.jobs.state import JobState
from sluice.object_store import extract_key, original_key, tenant_prefix
from sluice.settings import EmbeddingClientSettings, JobSettings
from sluice.vector_points import DenseCollection
from tests.e2e.api import Json
from tests.e2e.running import Join, Member, Stores
from tests.integration.doctor_stores import LONG_AGO, counts, examined, is_there, point, put, shown_version

SETTINGS = JobSettings(doctor_grace_seconds=0)


@pytest.fixture
def member(join: Join) -> Member:
    """The administrator of a tenant that is there for one test."""
    return join(f"Examined {uuid4().hex}", Role.ADMIN)


@pytest.fixture
def document(member: Member) -> Json:
    """A document of a few chunks."""
    mark = uuid4().hex
    text = " ".join(f"In year {n} the harbour master {mark} counted {n} ships." for n in range(60))
    return member.api.ingested(member.api.new_source(), "harbour.txt", text.encode())


@pytest.fixture(scope="module")
def dense(variables: dict[str, str]) -> DenseCollection:
    """The collection of the model that EMB serves."""
    with HttpEmbeddingClient(EmbeddingClientSettings(url=variables["SLUICE_EMB_URL"])) as client:
        model = client.model()
    return DenseCollection(model.alias, model.version, model.dimension)


@pytest.fixture
def patient(stores: Stores, member: Member, dense: DenseCollection) -> Patient:
    """The tenant's stores, without any grace."""
    return Patient(member.tenant_id, stores.sessions, stores.objects, stores.index, (dense,), SETTINGS, _no_upsert)


def _no_upsert(*_: object) -> None:
    raise AssertionError("nothing is to be indexed here")


def test_stores_that_agree_are_said_to_agree(member: Member, document: Json) -> None:
    result = examined(member)

    assert counts(result) == counts(result["found"]) == {}
    assert (result["samples"], result["lost"], result["repair"]) == ({}, [], False)
    assert set(result["qdrant"]) == set(result["s3"]) == {"missing", "orphaned"}


def test_a_tenant_without_documents_is_well(member: Member) -> None:
    assert counts(examined(member, repair=True)) == {}


def test_points_that_are_gone_are_counted_and_come_back(member: Member, stores: Stores, document: Json) -> None:
    version_id = shown_version(stores, member, document)
    before = {
        name: stores.index.chunk_ids(member.tenant_id, name, UUID(document["id"]))
        for name in stores.index.collections()
    }
    stores.index.delete_versions(member.tenant_id, [version_id])

    only_looked = examined(member)
    mended = examined(member, repair=True)

    number = document["version"]["chunks"]
    assert counts(only_looked) == counts(mended["found"]) == {"qdrant.missing": number}
    assert len(only_looked["samples"]["qdrant.missing"]) == min(5, number)
    assert counts(mended) == {}
    after = {
        name: stores.index.chunk_ids(member.tenant_id, name, UUID(document["id"]))
        for name in stores.index.collections()
    }
    assert after == before


def test_half_a_pair_of_points_is_missing_too(
    member: Member, stores: Stores, document: Json, dense: DenseCollection
) -> None:
    points, _ = stores.index.page(member.tenant_id, dense.name, None, 1)
    stores.index.delete_points(member.tenant_id, dense.name, [points[0].point_id])

    mended = examined(member, repair=True)

    assert counts(mended["found"]) == {"qdrant.missing": 1}
    assert counts(mended) == {}


def test_points_that_nothing_stands_behind_go_and_those_of_others_stay(
    member: Member, stranger: Member, stores: Stores, document: Json, dense: DenseCollection
) -> None:
    """Of a document nobody knows, of a version nobody knows, and of a chunk that the version does not have."""
    version_id = shown_version(stores, member, document)
    known = UUID(document["id"])
    strays = [point(dense), point(dense, document_id=known), point(dense, document_id=known, version_id=version_id)]
    foreign = point(dense)
    stores.index.upsert(member.tenant_id, dense, strays)
    stores.index.upsert(stranger.tenant_id, dense, [foreign])

    mended = examined(member, repair=True)

    assert counts(mended["found"]) == {"qdrant.orphaned": 2 * len(strays)}
    assert counts(mended) == {}
    assert stores.index.count_document(member.tenant_id, known) == 2 * document["version"]["chunks"]
    assert stores.index.count_document(stranger.tenant_id, foreign.document_id) == 2
    stores.index.delete_document(stranger.tenant_id, foreign.document_id)


@pytest.fixture
def former(stores: Stores) -> Iterator[DenseCollection]:
    """The collection of a model that nobody serves; other tests must not find it."""
    collection = DenseCollection("default", f"former-{uuid4().hex[:8]}", 8)
    yield collection
    stores.index._client.delete_collection(collection.name)


def test_points_of_a_model_that_is_not_served_any_more_are_orphans(
    member: Member, stores: Stores, document: Json, former: DenseCollection
) -> None:
    version_id = shown_version(stores, member, document)
    stores.index.upsert(member.tenant_id, former, [point(former, version_id=version_id)])

    mended = examined(member, repair=True)

    # The lexical one of a chunk that is not there, and the one of the former model.
    assert counts(mended["found"]) == {"qdrant.orphaned": 2}
    assert stores.index.page(member.tenant_id, former.name, None, 10) == ([], None)


@pytest.fixture
def no_workers(platform: Platform) -> Iterator[None]:
    """Nobody works on what is queued."""
    platform.stop("worker")
    yield
    platform.start("worker")


def test_points_of_a_version_that_is_being_read_are_left_alone(
    member: Member, stores: Stores, dense: DenseCollection, patient: Patient, no_workers: None
) -> None:
    accepted = member.api.accepted(member.api.new_source(), "new.txt", uuid4().bytes.hex().encode())
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version_id = session.scalars(select(DocumentVersion.id)).one()
    theirs = point(dense, document_id=UUID(accepted["document_id"]), version_id=version_id)
    stores.index.upsert(member.tenant_id, dense, [theirs])
    examination = OrphanedPoints(dense.name)

    assert examination.look(patient, None).wrong == []

    with tenant_session(stores.sessions, member.tenant_id) as session:
        actions.cancel(session, UUID(accepted["job_id"]))
    canceled = examination.look(patient, None)
    assert len(canceled.wrong) == 1

    with tenant_session(stores.sessions, member.tenant_id) as session:
        actions.retry(session, UUID(accepted["job_id"]), SETTINGS)
    # Found to be an orphan, and retried before it was deleted: it must not be lost.
    canceled.mend()
    assert stores.index.held(member.tenant_id, dense.name, [theirs.chunk_id]) == {theirs.chunk_id}

    with tenant_session(stores.sessions, member.tenant_id) as session:
        actions.cancel(session, UUID(accepted["job_id"]))
    canceled.mend()
    assert stores.index.held(member.tenant_id, dense.name, [theirs.chunk_id]) == set()


def test_many_points_are_looked_at_page_by_page(
    member: Member, stores: Stores, dense: DenseCollection, patient: Patient
) -> None:
    stores.index.upsert(member.tenant_id, dense, [point(dense) for _ in range(1500)])
    examination = OrphanedPoints(dense.name)

    first = examination.look(patient, None)
    second = examination.look(patient, first.after)

    assert (len(first.wrong), len(second.wrong), second.after) == (1000, 500, None)
    first.mend()
    second.mend()
    assert examination.look(patient, None).wrong == []


def test_chunks_are_looked_at_page_by_page(member: Member, stores: Stores, document: Json, patient: Patient) -> None:
    version_id = shown_version(stores, member, document)
    with tenant_session(stores.sessions, member.tenant_id) as session:
        session.execute(insert(Chunk), [_unindexed(member, document, version_id, 100 + n) for n in range(1200)])

    looks = [MissingPoints().look(patient, None)]
    while looks[-1].after is not None:
        looks.append(MissingPoints().look(patient, looks[-1].after))

    with tenant_session(stores.sessions, member.tenant_id) as session:
        unindexed = {str(each) for each in session.scalars(select(Chunk.id).where(Chunk.ordinal >= 100))}
    found = [each for look in looks for each in look.wrong]
    assert len(looks) == 3
    assert (len(found), set(found)) == (1200, unindexed)


def _unindexed(member: Member, document: Json, version_id: UUID, ordinal: int) -> dict[str, object]:
    """A chunk that no ingest has put into the index."""
    return {
        "id": uuid4(),
        "tenant_id": member.tenant_id,
        "document_id": UUID(document["id"]),
        "version_id": version_id,
        "ordinal": ordinal,
        "text": f"Chunk {ordinal}.",
        "text_hash": uuid4().bytes * 2,
        "token_count": 3,
        "lang": "en",
    }


def test_objects_that_no_row_asks_for_go_and_all_others_stay(
    member: Member, stores: Stores, document: Json, patient: Patient
) -> None:
    prefix = tenant_prefix(member.tenant_id)
    document_id, version_id = UUID(document["id"]), shown_version(stores, member, document)
    wanted = set(stores.objects.keys(prefix))
    announced = member.api.promised(document["source_id"], "b.txt", b"to come")
    with tenant_session(stores.sessions, member.tenant_id) as session:
        wanted.add(put(stores, session.scalars(select(Upload.object_key)).one()))
    orphans = {
        put(stores, f"{prefix}stray"),
        put(stores, f"{prefix}a/b/c/d/e/f"),
        put(stores, original_key(member.tenant_id, uuid4(), uuid4(), "0" * 64)),
        put(stores, original_key(member.tenant_id, document_id, uuid4(), "0" * 64)),
        put(stores, extract_key(member.tenant_id, document_id, uuid4())),
        put(stores, original_key(member.tenant_id, document_id, version_id, "0" * 64)),
    }

    look = OrphanedObjects().look(patient, None)
    look.mend()

    assert announced
    assert set(look.wrong) == orphans
    assert set(stores.objects.keys(prefix)) == wanted
    assert OrphanedObjects().look(patient, None).wrong == []


def test_an_object_may_be_younger_than_its_row(member: Member, stores: Stores, document: Json) -> None:
    key = put(stores, f"{tenant_prefix(member.tenant_id)}young")

    assert counts(examined(member, repair=True)) == {}
    assert is_there(stores, key)


def test_a_listing_goes_on_where_it_stopped(member: Member, stores: Stores) -> None:
    prefix = tenant_prefix(member.tenant_id)
    keys = sorted(put(stores, f"{prefix}{n:02}/{uuid4()}") for n in range(7))

    found, after = stores.objects.page(prefix, None, 3)
    while after is not None:
        more, after = stores.objects.page(prefix, after, 3)
        found += more

    assert [each.key for each in found] == keys


def test_a_file_that_is_gone_is_said_to_be_lost(
    member: Member, stores: Stores, document: Json, patient: Patient
) -> None:
    key = next(key for key in stores.objects.keys(tenant_prefix(member.tenant_id)) if not key.endswith(".gz"))
    stores.objects.delete(key)

    result = examined(member, repair=True)

    assert counts(result) == {"s3.missing": 1}
    assert result["lost"] == [document["id"]]
    assert member.api.document(document["id"])["searchable"]
    assert LostOriginals().look(patient, None).wrong == [document["id"]]


def test_uploads_that_nobody_completed_are_forgotten(member: Member, stores: Stores, document: Json) -> None:
    for name in ("old.txt", "new.txt"):
        member.api.promised(document["source_id"], name, name.encode())
    with tenant_session(stores.sessions, member.tenant_id) as session:
        session.execute(update(Upload).where(Upload.name == "old.txt").values(expires_at=LONG_AGO))
        put(stores, session.scalars(select(Upload.object_key).where(Upload.name == "old.txt")).one())

    result = examined(member, repair=True)

    assert counts(result["found"]) == {"postgres.expired_uploads": 1}
    assert counts(result) == {}
    with tenant_session(stores.sessions, member.tenant_id) as session:
        assert session.scalars(select(Upload.name)).all() == ["new.txt"]


def test_erasing_that_was_interrupted_is_finished(member: Member, stores: Stores, document: Json) -> None:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        session.execute(update(Document).values(erased_at=LONG_AGO))

    result = examined(member, repair=True)

    assert result["found"]["postgres"]["half_erased"] == 1
    assert counts(result) == {}
    assert stores.objects.keys(tenant_prefix(member.tenant_id)) == []
    assert stores.index.count_document(member.tenant_id, UUID(document["id"])) == 0


def test_a_document_that_lost_chunks_is_read_again(member: Member, stores: Stores, document: Json) -> None:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        session.execute(delete(Chunk).where(Chunk.ordinal == 0))

    result = examined(member, repair=True)

    assert result["found"]["postgres"]["incomplete"] == 1
    assert counts(result) == {}
    with tenant_session(stores.sessions, member.tenant_id) as session:
        again = session.scalars(select(Job.id).where(Job.kind == "reindex")).one()
    assert member.api.wait(str(again))["state"] == "ready"
    with tenant_session(stores.sessions, member.tenant_id) as session:
        assert session.scalar(select(func.count()).select_from(Chunk)) == document["version"]["chunks"]
    assert counts(examined(member)) == {}


def test_chunks_of_a_version_that_was_replaced_go(member: Member, stores: Stores, document: Json) -> None:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version = session.scalars(select(DocumentVersion)).one()
        former = DocumentVersion(
            document_id=version.document_id,
            source_id=version.source_id,
            number=0,
            content_hash="0" * 64,
            size=1,
            mime="text/plain",
            object_key=version.object_key,
            superseded_at=LONG_AGO,
        )
        session.add(former)
        session.flush()
        session.execute(update(Chunk).where(Chunk.ordinal == 0).values(version_id=former.id))
        session.execute(
            update(DocumentVersion)
            .where(DocumentVersion.id == version.id)
            .values(chunk_count=func.greatest(0, DocumentVersion.chunk_count - 1))
        )

    result = examined(member, repair=True)

    assert result["found"]["postgres"]["left_over_chunks"] == 1
    assert counts(result) == {}


def test_a_job_that_no_step_will_end_is_reported(member: Member, stores: Stores) -> None:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        stuck = Job(kind="test", state=JobState.QUEUED)
        session.add(stuck)
        session.flush()
        job_id = str(stuck.id)

    result = examined(member, repair=True)

    assert counts(result) == {"postgres.stuck_jobs": 1}
    assert result["samples"]["postgres.stuck_jobs"] == [job_id]
