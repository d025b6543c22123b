"""An answer on its way to the client: whole, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.llm.faces import Face
from services.llm.generation import Generation
from services.llm.host import ModelHost, ServedModel
from services.llm.metrics import LlmMetrics
from sluice import telemetry
from sluice.wire.asgi import ClientGone, problem_for, while_connected

_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True)
class StreamSettings:
    """How a stream behaves."""

    include_usage: bool
    ping_seconds: float
    reader_seconds: float


class AnswerTask(Protocol):
    """What a request asks for, in a form that any model can be given."""

    async def generation(self, model: ServedModel) -> tuple[Generation, Face]:
        """Have the model read the request; `Malformed` if it is not in order."""


class WholeAnswer:
    """Waits for a slot, writes the answer and sends it at once."""

    def __init__(self, task: AnswerTask, host: ModelHost, metrics: LlmMetrics) -> None:
        self._task = task
        self._host = host
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; `ClientGone` if nobody waits for it any more."""
        try:
            content = await while_connected(receive, self._content())
        except ClientGone:
            self._metrics.abandoned.inc()
            raise
        await Response(content, media_type="application/json")(scope, receive, send)

    async def _content(self) -> str:
        with self._host.using() as model:
            async with model.scheduler.reading() as deadline:
                generation, face = await self._task.generation(model)
            async with model.scheduler.slot(generation.tokens_at_most, deadline):
                text = await generation.whole_text()
            return face.whole(text).model_dump_json()


class StreamedAnswer:
    """Waits for a slot and sends the answer while it is written.

    Until there is a slot nothing is sent, so a refusal is an ordinary response with its own status.
    """

    def __init__(self, task: AnswerTask, host: ModelHost, metrics: LlmMetrics, settings: StreamSettings) -> None:
        self._task = task
        self._host = host
        self._metrics = metrics
        self._settings = settings
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; `ClientGone` if the client left before the first byte."""
        try:
            await while_connected(receive, self._stream(scope["path"], send))
        except ClientGone:
            self._metrics.abandoned.inc()
            if not self._started:
                raise

    async def _stream(self, path: str, send: Send) -> None:
        with self._host.using() as model:
            async with model.scheduler.reading() as deadline:
                self._generation, self._face = await self._task.generation(model)
            async with model.scheduler.slot(self._generation.tokens_at_most, deadline):
                await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
                self._started = True
                await self._send_events(path, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, path: str, send: Send) -> None:
        try:
            async with aclosing(self._events()) as events:
                async for event in events:
                    await self._send(send, event)
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - logged, and told to the client in the stream
            # The status is sent: all that is left is to say it in the stream, and not to say [DONE].
            telemetry.logger().exception("answer.failed")
            await self._send(send, f"data: {json.dumps(problem_for(error, path).body)}\n\n".encode())

    async def _send(self, send: Send, event: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.reader_seconds):
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except TimeoutError:
            raise ClientGone from None

    async def _events(self) -> AsyncGenerator[bytes, None]:
        if opening := self._face.opening():
            yield self._event(opening)
        async with aclosing(_with_pauses(self._generation.texts(), self._settings.ping_seconds)) as texts:
            async for text in texts:
                yield _PING if text is None else self._event(self._face.piece(text))
        yield self._event(self._face.ending())
        if self._settings.include_usage:
            yield self._event(self._face.usage())
        yield _DONE

    def _event(self, chunk: BaseModel) -> bytes:
        # Who did not ask for the usage must not see the member at all; who did gets null until the last chunk.
        left_out = None if self._settings.include_usage else {"usage"}
        return b"data: " + chunk.model_dump_json(exclude=left_out).encode() + b"\n\n"


async def _with_pauses(texts: AsyncGenerator[str, None], seconds: float) -> AsyncGenerator[str | None, None]:
    """The texts, and None whenever there was none for so many seconds."""
    async with aclosing(texts):
        while True:
            step = asyncio.ensure_future(_next(texts))
            try:
                while not (await asyncio.wait({step}, timeout=seconds))[0]:
                    yield None
            finally:
                step.cancel()
                # The generator cannot be closed while a step of it runs.
                await asyncio.wait({step})
            text = step.result()
            if text is None:
                return
            yield text


async def _next(texts: AsyncIterator[str]) -> str | None:
    return await anext(texts, None)
