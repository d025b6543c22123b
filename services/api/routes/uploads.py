"""`/api/uploads`: bytes go straight into the object store, past the API, and are checked afterwards."""

from __future__ import annotations

import tempfile
from datetime import datetime
from typing import Annotated, BinaryIO, cast
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, StringConstraints

from services.api.dependencies import ResourcesDep
from services.api.idempotency import ONCE
from services.api.middleware import too_large
from services.api.received import check_not_empty, checked_tags, measure
from services.api.routes.documents import IntakeDep, JobAccepted, answer_upload
from services.api.text import CleanText
from sluice.documents.media_types import safe_name, sniff
from sluice.documents.models import Upload
from sluice.documents.upload import Incoming, Intake
from sluice.errors import UnsupportedType
from sluice.object_store import ObjectStore

router = APIRouter(prefix="/api/uploads", tags=["Documents"])


class NewUpload(BaseModel):
    """What the client is going to put."""

    source_id: UUID
    name: CleanText = Field(min_length=1, max_length=1024, examples=["handbook.pdf"])
    size: int = Field(ge=0, description="Bytes", examples=[1_048_576])
    content_hash: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{64}$")] = Field(
        description="SHA-256 of the bytes, hex"
    )
    external_id: CleanText | None = Field(None, max_length=512)
    tags: list[CleanText] = []


class UploadPromise(BaseModel):
    """Where to put the bytes, and until when."""

    id: UUID
    url: str = Field(description="PUT exactly `size` bytes here")
    expires_at: datetime
    complete: str = Field(description="POST here when the bytes are put", examples=["/api/uploads/…:complete"])


@router.post("", operation_id="createUpload", status_code=201, summary="Ask for a presigned URL", dependencies=[ONCE])
def create(new: NewUpload, way_in: IntakeDep, it: ResourcesDep) -> UploadPromise:
    """A URL that takes the bytes for five minutes; then `:complete`."""
    if new.size > it.ingest.max_upload_bytes:
        raise too_large(it.ingest.max_upload_bytes, new.size)
    check_not_empty(new.size)
    upload, url = way_in.promise(
        new.source_id,
        Upload(
            source_id=new.source_id,
            name=safe_name(new.name),
            size=new.size,
            content_hash=new.content_hash,
            external_id=new.external_id,
            tags=list(checked_tags(new.tags)),
        ),
    )
    return UploadPromise(
        id=upload.id, url=url, expires_at=upload.expires_at, complete=f"/api/uploads/{upload.id}:complete"
    )


@router.post(
    "/{upload_id}:complete",
    operation_id="completeUpload",
    status_code=202,
    summary="Say that the bytes are put",
    dependencies=[ONCE],
    responses={200: {"model": JobAccepted, "description": "The source has these bytes already"}},
)
def complete(upload_id: UUID, way_in: IntakeDep, it: ResourcesDep, response: Response) -> JobAccepted:
    """Check size, hash and type of what was put, and queue its reading."""
    upload = way_in.promised(upload_id)
    stored = way_in.stored_size(upload)
    if stored != upload.size:
        raise way_in.refuse(upload, f"{upload.size:,} bytes were announced and {stored:,} were put.")
    with tempfile.TemporaryFile(prefix="sluice-upload-") as file:
        body = cast("BinaryIO", file)
        incoming = Incoming(
            source_id=upload.source_id,
            name=upload.name,
            size=upload.size,
            content_hash=upload.content_hash,
            mime=_checked_type(body, upload, way_in, it.store),
            external_id=upload.external_id,
            tags=tuple(upload.tags),
        )
        return answer_upload(way_in.complete(upload, incoming, body), response)


def _checked_type(body: BinaryIO, upload: Upload, way_in: Intake, store: ObjectStore) -> str:
    body.writelines(store.pieces(upload.object_key))
    _, content_hash = measure(body)
    if content_hash != upload.content_hash:
        raise way_in.refuse(upload, "The SHA-256 of what was put is not the one that was announced.")
    try:
        return sniff(body, upload.name)
    except UnsupportedType:
        way_in.refuse(upload, "This type is not accepted.")
        raise
