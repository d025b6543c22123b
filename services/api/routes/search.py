"""`/api/search`: passages for a question, without a model's words."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from services.api.auth import CallerDep
from services.api.dependencies import ResourcesDep
from services.api.text import CleanText, storable
from sluice.chat.answer import shown
from sluice.retrieval.search import Fusion, Question
from sluice.vector_points import PassageFilter
from sluice.wire.events import FoundPassage

router = APIRouter(prefix="/api", tags=["Search and chat"])

QuestionText = Annotated[
    # In this order: behind a validator, constraints would measure the text before it is stripped.
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000), AfterValidator(storable)
]


class Where(BaseModel):
    """What a search is narrowed to. Within one member any value will do; all members must agree."""

    source_ids: list[UUID] = Field([], max_length=100)
    tags: list[CleanText] = Field([], max_length=32)
    langs: list[CleanText] = Field([], max_length=32, examples=[["en", "ru"]])
    mimes: list[CleanText] = Field([], max_length=32, examples=[["application/pdf"]])

    def to_filter(self) -> PassageFilter:
        """The filter for the index."""
        return PassageFilter(tuple(self.source_ids), tuple(self.tags), tuple(self.langs), tuple(self.mimes))


class SearchRequest(Where):
    """A question, and where to look."""

    question: QuestionText = Field(examples=["How is a package orphaned?"])
    limit: int = Field(10, ge=1, le=50)
    fusion: Fusion | None = Field(
        None,
        description="`sum`: normalized scores; `rrf`: reciprocal ranks. Default: `sum` where one embedding model makes "
        "the index; where several do, reciprocal ranks of the words and of the models that read the language",
    )
    diverse: bool = Field(False, description="Thin out passages that repeat one another (MMR)")


class SearchAnswer(BaseModel):
    """Passages, best first, with each leg's own score."""

    passages: list[FoundPassage]
    lang: str = Field(description="Of the question")
    degraded: list[str] = Field(description="Parts that were away: results may be worse than usual")
    milliseconds: dict[str, float]


@router.post("/search", operation_id="search", summary="Find passages")
def search(asked: SearchRequest, who: CallerDep, it: ResourcesDep) -> SearchAnswer:
    """The passages that bear on the question, found by meaning and by words."""
    question = Question(asked.question, asked.to_filter(), asked.limit, asked.fusion, asked.diverse)
    found = it.search.find(who.tenant_id, question)
    return SearchAnswer(
        passages=[shown(number, passage) for number, passage in enumerate(found.passages, start=1)],
        lang=found.lang,
        degraded=found.degraded,
        milliseconds=found.milliseconds,
    )
