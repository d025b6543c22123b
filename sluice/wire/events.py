"""Server-sent events (WHATWG HTML, 9.2): what `/api/chat` and `/api/jobs/{id}/events` say, one type an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "length", "canceled", "no_context", "limit", "error"]


class Event(BaseModel):
    """An event with a name, to be sent with an id."""

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str]


class Place(BaseModel):
    """Where in a document something stands."""

    document_id: UUID
    document_name: str
    source_id: UUID
    version: int
    chunk_id: UUID
    mime: str
    page: int | None
    # [[page, x0, y0, x1, y1], ...] in PDF points, origin at the bottom left.
    boxes: list[list[float]]


class FoundPassage(Place):
    """A passage given to the model, by the number under which an answer cites it."""

    number: int
    last_page: int | None
    heading_path: list[str]
    lang: str
    text: str
    score: float
    scores: dict[str, float]


class MessageStart(Event):
    """An answer begins."""

    name: ClassVar[str] = "message.start"

    conversation_id: UUID
    message_id: UUID


class RetrievalStart(Event):
    """Passages are being looked for."""

    name: ClassVar[str] = "retrieval.start"


class RetrievalResult(Event):
    """The passages that the answer will be made of."""

    name: ClassVar[str] = "retrieval.result"

    lang: str
    degraded: list[str]
    passages: list[FoundPassage]


class RetrievalEmpty(Event):
    """Nothing bears on the question; no model is asked."""

    name: ClassVar[str] = "retrieval.empty"

    lang: str
    degraded: list[str]
    detail: str


class TextDelta(Event):
    """More of the answer."""

    name: ClassVar[str] = "text.delta"

    text: str


class CitationMade(Event):
    """A sentence of the answer, and the place that bears it out."""

    name: ClassVar[str] = "citation"

    number: int
    quote: str
    place: Place


class Usage(Event):
    """Tokens read and written."""

    name: ClassVar[str] = "usage"

    prompt_tokens: int
    completion_tokens: int


class MessageEnd(Event):
    """The answer is complete and saved."""

    name: ClassVar[str] = "message.end"

    message_id: UUID
    finish_reason: FinishReason
    model: str | None
    milliseconds: dict[str, float]


class Failure(Event):
    """The answer could not go on: a problem document (RFC 9457)."""

    name: ClassVar[str] = "error"

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None


class JobProgress(Event):
    """How far a job has come."""

    name: ClassVar[str] = "job.progress"

    job_id: UUID
    state: str
    step: str | None
    done: int
    total: int | None
    elapsed_seconds: float
    # Until the stage ends; None when that cannot be known.
    eta_seconds: float | None = None
    # In line, from 1; None when nothing of the job waits.
    place: int | None = None
    error: dict[str, Any] | None = None
    finished_at: datetime | None = None
    allowed_actions: list[str]


class JobEnd(JobProgress):
    """The job has ended; no event follows."""

    name: ClassVar[str] = "job.end"
