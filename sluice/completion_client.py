"""LLM as the core sees it: a conversation and passages in, a stream of text out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import httpx
from pydantic import ValidationError

from sluice import telemetry
from sluice.errors import Invalid, TemporarilyUnavailable
from sluice.settings import CompletionClientSettings
from sluice.wire.completions import ChatCompletionChunk, ChatCompletionRequest, FinishReason, StreamOptions, Usage

_CONNECT_SECONDS = 3.0
_RETRY_SECONDS = 2.0
_DATA = "data: "
_DONE = "[DONE]"


@dataclass(frozen=True)
class AnswerBegan:
    """The model has taken the question. `model` is the honest name of what answers."""

    model: str


@dataclass(frozen=True)
class TextPiece:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True)
class AnswerEnded:
    """The answer is complete (`stop`) or was cut (`length`). What it took, if the server tells."""

    finish_reason: FinishReason
    usage: Usage | None


CompletionEvent = AnswerBegan | TextPiece | AnswerEnded


class CompletionClient(Protocol):
    """Whoever answers."""

    def stream(self, request: ChatCompletionRequest) -> AsyncGenerator[CompletionEvent, None]:
        """`AnswerBegan`, pieces of text, `AnswerEnded`. Closing the generator stops the model.

        Raises `TemporarilyUnavailable` when the model cannot be reached, is busy, or stops in the middle, and `Invalid`
        when it refuses the request for what it is.
        """


class HttpCompletionClient:
    """A `CompletionClient` over HTTP, for one event loop."""

    def __init__(self, settings: CompletionClientSettings) -> None:
        self.model = settings.model
        self._http = httpx.AsyncClient(
            base_url=settings.url, timeout=httpx.Timeout(settings.timeout, connect=_CONNECT_SECONDS)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up the connections."""
        await self._http.aclose()

    async def stream(self, request: ChatCompletionRequest) -> AsyncGenerator[CompletionEvent, None]:
        """`AnswerBegan`, pieces of text, `AnswerEnded`. Closing the generator closes the connection."""
        asked = request.model_copy(update={"stream": True, "stream_options": StreamOptions(include_usage=True)})
        async with self._response(asked.model_dump(mode="json", exclude_none=True)) as response:
            answer = _Answer()
            async for line in response.aiter_lines():
                # Empty lines end events, and lines with a colon in front are comments.
                if not line.startswith(_DATA):
                    continue
                content = line.removeprefix(_DATA)
                if content == _DONE:
                    yield answer.ended()
                    return
                for event in answer.read(content):
                    yield event
            raise _broken("The stream ended in the middle of the answer.")

    @asynccontextmanager
    async def _response(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        headers = telemetry.http_headers()
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(response)
                yield response
        except httpx.TransportError as error:
            raise _broken(f"LLM does not answer: {type(error).__name__}.") from error


class _Answer:
    """What the chunks have said so far."""

    def __init__(self) -> None:
        self._began = False
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None

    def read(self, content: str) -> list[CompletionEvent]:
        try:
            chunk = ChatCompletionChunk.model_validate_json(content)
        except ValidationError as error:
            raise _broken("LLM reported an error in the middle of the answer.") from error
        events: list[CompletionEvent] = []
        if not self._began:
            self._began = True
            events.append(AnswerBegan(chunk.model))
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.delta.content:
                events.append(TextPiece(choice.delta.content))
        return events

    def ended(self) -> AnswerEnded:
        if self._finish_reason is None:
            raise _broken("LLM did not say why the answer ended.")
        return AnswerEnded(self._finish_reason, self._usage)


def _broken(detail: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(detail, code="llm_unavailable", retry_after=_RETRY_SECONDS)


def _refusal(response: httpx.Response) -> Invalid | TemporarilyUnavailable:
    detail = f"LLM answered {response.status_code}: {_detail(response)}"
    if response.status_code in {
        httpx.codes.BAD_REQUEST,
        httpx.codes.REQUEST_ENTITY_TOO_LARGE,
        httpx.codes.UNPROCESSABLE_ENTITY,
    }:
        return Invalid(detail, code="completion_refused")
    try:
        retry_after = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        retry_after = _RETRY_SECONDS
    return TemporarilyUnavailable(detail, code="llm_unavailable", retry_after=retry_after)


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
