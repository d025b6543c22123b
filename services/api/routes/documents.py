"""`/api/documents`: what people upload, look at and delete."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from services.api.auth import CallerDep
from services.api.conditional import respond
from services.api.dependencies import ResourcesDep
from services.api.idempotency import UPLOADED_ONCE
from services.api.paging import CursorParam, LimitParam, Page, decode, page_of
from services.api.received import UPLOAD_FORM, ReceivedFile, received_file
from services.api.routes.jobs import JobError
from services.api.sessions import SessionDep
from sluice.documents import repository
from sluice.documents.erase import erase
from sluice.documents.models import DocumentVersion
from sluice.documents.repository import DocumentView
from sluice.documents.upload import Accepted, Incoming, Intake
from sluice.jobs.state import JobState
from sluice.object_store import PRESIGNED_SECONDS

router = APIRouter(prefix="/api/documents", tags=["Documents"])


class JobAccepted(BaseModel):
    """The document that the upload led to, and the job to watch."""

    document_id: UUID
    job_id: UUID
    state: JobState
    duplicate: bool = Field(description="The source has these bytes already; nothing was added")

    @classmethod
    def of(cls, accepted: Accepted) -> JobAccepted:
        """What is shown of an accepted upload."""
        return cls(
            document_id=accepted.document_id,
            job_id=accepted.job_id,
            state=accepted.job_state,
            duplicate=accepted.duplicate,
        )


class VersionView(BaseModel):
    """One upload's bytes."""

    number: int
    content_hash: str = Field(description="SHA-256, hex")
    size: int
    mime: str
    title: str | None
    lang: str | None
    pages: int | None
    chunks: int | None
    created_at: datetime

    @classmethod
    def of(cls, version: DocumentVersion) -> VersionView:
        """What is shown of a version."""
        return cls(
            number=version.number,
            content_hash=version.content_hash,
            size=version.size,
            mime=version.mime,
            title=version.title,
            lang=version.lang,
            pages=version.page_count,
            chunks=version.chunk_count,
            created_at=version.created_at,
        )


class DocumentDetail(BaseModel):
    """A document, its newest version and what became of it."""

    id: UUID
    source_id: UUID
    name: str
    external_id: str
    tags: list[str]
    state: JobState = Field(description="Of the newest version's job")
    searchable: bool = Field(description="Some version, perhaps an older one, is found by search")
    job_id: UUID | None
    error: JobError | None
    version: VersionView
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, view: DocumentView) -> DocumentDetail:
        """What is shown of a document."""
        job = view.job
        return cls(
            id=view.document.id,
            source_id=view.document.source_id,
            name=view.document.name,
            external_id=view.document.external_id,
            tags=view.document.tags,
            state=job.state if job else JobState.READY,
            searchable=view.searchable,
            job_id=job.id if job else None,
            error=JobError(code=job.error_code, detail=job.error_detail) if job and job.error_code else None,
            version=VersionView.of(view.version),
            created_at=view.document.created_at,
            updated_at=view.document.updated_at,
        )


class OriginalLink(BaseModel):
    """Where the uploaded bytes can be fetched, for a while."""

    url: str
    expires_in: int = Field(description="Seconds")
    content_hash: str
    version: int


class Receipt(BaseModel):
    """What the stores still hold of an erased document: zeros."""

    document_id: UUID
    rows: Literal[0]
    points: Literal[0]
    objects: Literal[0]


def intake(who: CallerDep, it: ResourcesDep) -> Intake:
    """The way in for documents of the caller's tenant."""
    return Intake(it.sessions, it.store, it.jobs, who.tenant_id, by=who.user_id)


IntakeDep = Annotated[Intake, Depends(intake)]


def answer_upload(accepted: Accepted, response: Response) -> JobAccepted:
    """202 and where to watch; 200 when nothing had to be done."""
    response.status_code = 200 if accepted.duplicate else 202
    response.headers["Location"] = f"/api/jobs/{accepted.job_id}"
    return JobAccepted.of(accepted)


@router.post(
    "",
    operation_id="uploadDocument",
    status_code=202,
    dependencies=[UPLOADED_ONCE],
    summary="Upload a document",
    openapi_extra=UPLOAD_FORM,
    responses={200: {"model": JobAccepted, "description": "The source has these bytes already"}},
)
def upload(file: Annotated[ReceivedFile, Depends(received_file)], way_in: IntakeDep, response: Response) -> JobAccepted:
    """Take a file in and queue its reading. A known name (or `external_id`) makes a new version."""
    incoming = Incoming(
        source_id=file.source_id,
        name=file.name,
        size=file.size,
        content_hash=file.content_hash,
        mime=file.mime,
        external_id=file.external_id,
        tags=file.tags,
    )
    return answer_upload(way_in.accept(incoming, file.body), response)


@router.get("", operation_id="listDocuments", summary="List documents")
def list_documents(
    session: SessionDep,
    source_id: Annotated[UUID | None, Query(description="Only of this source")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Page[DocumentDetail]:
    """The tenant's documents, newest first."""
    if source_id is not None:
        repository.get_source(session, source_id)
    views = repository.page(session, source_id=source_id, before=decode(cursor), limit=limit + 1)
    return page_of(views, limit, lambda view: (view.document.created_at, view.document.id), DocumentDetail.of)


@router.get("/{document_id}", operation_id="getDocument", summary="Show a document", response_model=DocumentDetail)
def get(document_id: UUID, session: SessionDep, request: Request) -> Response:
    """One document with its newest version."""
    return respond(request, DocumentDetail.of(repository.view(session, document_id)))


@router.get("/{document_id}/original", operation_id="getOriginal", summary="Fetch the original")
def original(document_id: UUID, session: SessionDep, it: ResourcesDep) -> OriginalLink:
    """A presigned URL of the version that search shows (the newest, while none is ready)."""
    name = repository.get_document(session, document_id).name
    version = repository.readable_version(session, document_id)
    url = it.store.presigned_get(version.object_key, name, version.mime)
    return OriginalLink(
        url=url, expires_in=PRESIGNED_SECONDS, content_hash=version.content_hash, version=version.number
    )


@router.delete("/{document_id}", operation_id="deleteDocument", summary="Erase a document")
def delete(document_id: UUID, who: CallerDep, it: ResourcesDep) -> Receipt:
    """Erase the document from every store and prove it. When a store is away, 503: ask again, it goes on from there."""
    left = erase(it.sessions, it.store, it.index, who.tenant_id, document_id, by=who.user_id)
    return Receipt.model_validate(
        {"document_id": document_id, "rows": left.rows, "points": left.points, "objects": left.objects}
    )
