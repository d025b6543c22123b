"""What tests do to the stores that the doctor compares, and how they ask it."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import select

from sluice.db.session import tenant_session
from sluice.documents.models import Document
from sluice.object_store import ObjectNotFound
from sluice.vector_points import ChunkPoint, DenseCollection
from tests.e2e.api import Json
from tests.e2e.running import Member, Stores

LONG_AGO = datetime.now(UTC) - timedelta(days=2)


class Words:
    """A sparse vector of one token."""

    indices = (1,)
    values = (1.0,)


def examined(member: Member, *, repair: bool = False) -> Json:
    response = member.api.http.post("/api/admin/doctor", json={"repair": repair})
    assert response.status_code == 202, response.text
    job = member.api.wait(response.json()["id"])
    assert job["state"] == "ready", job
    return job["result"]  # type: ignore[no-any-return] # JSON


def counts(by_store: Json) -> dict[str, int]:
    """What is wrong, without what is not."""
    return {
        f"{store}.{kind}": number
        for store in ("qdrant", "s3", "postgres")
        for kind, number in by_store[store].items()
        if number
    }


def point(dense: DenseCollection, *, document_id: UUID | None = None, version_id: UUID | None = None) -> ChunkPoint:
    return ChunkPoint(
        chunk_id=uuid4(),
        source_id=uuid4(),
        document_id=document_id or uuid4(),
        version_id=version_id or uuid4(),
        version=1,
        page=None,
        lang="en",
        mime="text/plain",
        tags=[],
        updated_at=LONG_AGO,
        dense=[1.0] + [0.0] * (dense.dimension - 1),
        words=Words(),
        grams=Words(),
    )


def shown_version(stores: Stores, member: Member, document: Json) -> UUID:
    with tenant_session(stores.sessions, member.tenant_id) as session:
        version = session.scalar(select(Document.active_version_id).where(Document.id == UUID(document["id"])))
    assert version is not None
    return version


def put(stores: Stores, key: str) -> str:
    stores.objects.put(key, io.BytesIO(b"something"))
    return key


def is_there(stores: Stores, key: str) -> bool:
    try:
        stores.objects.head(key)
    except ObjectNotFound:
        return False
    return True
