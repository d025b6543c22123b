"""What the embedding models of now have not embedded, and where to have it indexed again."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from sluice.documents import indexed
from sluice.served_models import ServedModels


class OutdatedSource(BaseModel):
    """A source with documents that are found by their words alone, under one embedding alias at least."""

    source_id: UUID
    source: str = Field(description="Its name")
    documents: int
    outdated: int
    by_alias: dict[str, int]
    reindex: str = Field(description="Post to this path to have the source indexed again")


class Outdated(BaseModel):
    """The documents of the tenant that search shows, and those that an embedding model has not embedded."""

    models: dict[str, str] = Field(description="The model that EMB serves for each alias of the index")
    documents: int
    outdated: int
    sources: list[OutdatedSource]


def outdated_of(session: Session, served: ServedModels) -> Outdated:
    """The tenant's; `TemporarilyUnavailable` while EMB does not say what it serves."""
    models = served.index_models()
    vectors = {alias: model.vectors for alias, model in models.items() if model.vectors is not None}
    sources = indexed.left_behind(session, vectors)
    return Outdated(
        models={alias: model.model for alias, model in models.items()},
        documents=sum(each.documents for each in sources),
        outdated=sum(each.outdated for each in sources),
        sources=[
            OutdatedSource(
                source_id=each.source_id,
                source=each.source_name,
                documents=each.documents,
                outdated=each.outdated,
                by_alias=dict(each.by_alias),
                reindex=f"/api/admin/sources/{each.source_id}:reindex",
            )
            for each in sources
            if each.outdated
        ],
    )
