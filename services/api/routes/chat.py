"""`/api/chat`: a streamed answer with citations, and what was said before."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse

from services.api.auth import CallerDep
from services.api.conditional import respond
from services.api.dependencies import ResourcesDep
from services.api.errors import problem_of
from services.api.paging import CursorParam, LimitParam, Page, decode, page_of
from services.api.routes.search import QuestionText, Where
from services.api.sessions import SessionDep
from services.api.streaming import event_stream
from sluice.chat import repository
from sluice.chat.answer import Asked
from sluice.chat.models import Speaker

router = APIRouter(prefix="/api", tags=["Search and chat"])


class ChatRequest(Where):
    """A question to be answered from the documents."""

    question: QuestionText = Field(examples=["How is a package orphaned?"])
    conversation_id: UUID | None = Field(None, description="Goes on with this conversation; else a new one begins")
    max_tokens: int = Field(512, ge=1, le=4096)


class ConversationView(BaseModel):
    """A conversation, by its first question."""

    id: UUID
    title: str
    created_at: datetime


class CitationView(BaseModel):
    """A sentence of an answer and where it stands."""

    number: int
    document_id: UUID
    chunk_id: UUID
    page: int | None
    boxes: list[list[float]]
    quote: str


class MessageView(BaseModel):
    """A question or an answer."""

    id: UUID
    speaker: Speaker
    text: str
    finish_reason: str | None
    model: str | None
    timings: dict[str, Any]
    citations: list[CitationView]
    created_at: datetime


class ConversationDetail(ConversationView):
    """A conversation with all that was said."""

    messages: list[MessageView]


@router.post(
    "/chat",
    operation_id="chat",
    summary="Ask",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "`message.start`, `retrieval.start`, `retrieval.result` or `retrieval.empty`, `text.delta` "
            "and `citation` in turn, `usage`, `message.end`; or `error` with a problem document",
            "content": {"text/event-stream": {}},
        }
    },
)
async def chat(asked: ChatRequest, who: CallerDep, it: ResourcesDep, request: Request) -> EventSourceResponse:
    """Answer from the documents, streamed as named server-sent events. Closing the connection stops the model."""
    question = Asked(
        caller=who,
        question=asked.question,
        within=asked.to_filter(),
        conversation_id=asked.conversation_id,
        max_tokens=asked.max_tokens,
    )
    # Checked before the stream begins, so that a wrong id is a 404 and not an event.
    await it.answerer.check(question)
    path = request.url.path
    events = it.answerer.answer(question, describe=lambda error: problem_of(error, path))
    return event_stream(events, it.api.sse_heartbeat_seconds)


@router.post("/messages/{message_id}:cancel", operation_id="cancelMessage", status_code=202, summary="Stop an answer")
def cancel(message_id: UUID, who: CallerDep, it: ResourcesDep) -> Response:
    """Stop the answer at the model's next step; what was written stays."""
    it.cache.ask_to_stop(who.tenant_id, who.user_id, message_id)
    return Response(status_code=202)


@router.get("/conversations", operation_id="listConversations", summary="List conversations")
def list_conversations(
    session: SessionDep, who: CallerDep, limit: LimitParam = 50, cursor: CursorParam = None
) -> Page[ConversationView]:
    """The caller's own conversations, newest first."""
    rows = repository.page(session, who.user_id, before=decode(cursor), limit=limit + 1)
    return page_of(
        rows,
        limit,
        lambda row: (row.created_at, row.id),
        lambda row: ConversationView(id=row.id, title=row.title, created_at=row.created_at),
    )


@router.get(
    "/conversations/{conversation_id}",
    operation_id="getConversation",
    summary="Show a conversation",
    response_model=ConversationDetail,
)
def get(conversation_id: UUID, session: SessionDep, who: CallerDep, request: Request) -> Response:
    """What was asked and answered, with citations."""
    conversation = repository.get(session, who.user_id, conversation_id)
    said = repository.messages(session, conversation_id)
    cited = repository.citations(session, [message.id for message in said])
    views = [
        MessageView(
            id=message.id,
            speaker=message.speaker,
            text=message.text,
            finish_reason=message.finish_reason,
            model=message.model,
            timings=message.timings,
            citations=[
                CitationView.model_validate(citation, from_attributes=True)
                for citation in cited
                if citation.message_id == message.id
            ],
            created_at=message.created_at,
        )
        for message in said
    ]
    detail = ConversationDetail(
        id=conversation.id, title=conversation.title, created_at=conversation.created_at, messages=views
    )
    return respond(request, detail)
