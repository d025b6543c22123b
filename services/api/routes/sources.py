"""`/api/sources`: named collections of documents."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from services.api.auth import CallerDep
from services.api.conditional import respond
from services.api.idempotency import ONCE
from services.api.paging import CursorParam, LimitParam, Page, decode, page_of
from services.api.sessions import SessionDep
from sluice.documents import repository
from sluice.documents.models import Source
from sluice.identity import audit

router = APIRouter(prefix="/api/sources", tags=["Sources"])

SourceName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")
]


class NewSource(BaseModel):
    """A source to be made."""

    name: SourceName = Field(examples=["Handbooks"])


class SourceView(BaseModel):
    """A source and what is in it."""

    id: UUID
    name: str
    documents: int
    created_at: datetime

    @classmethod
    def of(cls, source: Source, documents: int) -> SourceView:
        """What is shown of a source."""
        return cls(id=source.id, name=source.name, documents=documents, created_at=source.created_at)


@router.post("", operation_id="createSource", status_code=201, summary="Make a source", dependencies=[ONCE])
def create(new: NewSource, session: SessionDep, response: Response) -> SourceView:
    """Make a source; 409 when the tenant has one of this name."""
    source = repository.create_source(session, new.name)
    response.headers["Location"] = f"/api/sources/{source.id}"
    return SourceView.of(source, 0)


@router.get("", operation_id="listSources", summary="List sources")
def list_sources(session: SessionDep, limit: LimitParam = 50, cursor: CursorParam = None) -> Page[SourceView]:
    """The tenant's sources, oldest first."""
    rows = repository.sources(session, after=decode(cursor), limit=limit + 1)
    counts = repository.document_counts(session, [row.id for row in rows])
    return page_of(
        rows, limit, lambda row: (row.created_at, row.id), lambda row: SourceView.of(row, counts.get(row.id, 0))
    )


@router.get("/{source_id}", operation_id="getSource", summary="Show a source", response_model=SourceView)
def get(source_id: UUID, session: SessionDep, request: Request) -> Response:
    """One source."""
    source = repository.get_source(session, source_id)
    count = repository.document_counts(session, [source_id]).get(source_id, 0)
    return respond(request, SourceView.of(source, count))


@router.delete("/{source_id}", operation_id="deleteSource", status_code=204, summary="Delete an empty source")
def delete(source_id: UUID, session: SessionDep, who: CallerDep) -> None:
    """Delete a source that has no documents; 409 while it has some."""
    name = repository.get_source(session, source_id).name
    repository.delete_source(session, source_id)
    audit.record(session, "source.delete", "source", source_id, by=who.user_id, name=name)
