"""An answer on its way to the client: whole, or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.llm.faces import Face
from services.llm.generation import Generation
from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
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


class WholeAnswer:
    """Waits for a slot, writes the answer and sends it at once."""

    def __init__(self, generation: Generation, face: Face, scheduler: Scheduler, metrics: LlmMetrics) -> None:
        self._generation = generation
        self._face = face
        self._scheduler = scheduler
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; `ClientGone` if nobody waits for it any more."""
        try:
            text = await while_connected(receive, self._text())
        except ClientGone:
            self._metrics.abandoned.inc()
            raise
        response = Response(self._face.whole(text).model_dump_json(), media_type="application/json")
        await response(scope, receive, send)

    async def _text(self) -> str:
        async with self._scheduler.slot():
            return await self._generation.whole_text()


class StreamedAnswer:
    """Waits for a slot and sends the answer while it is written.

    Until there is a slot nothing is sent, so a refusal is an ordinary response with its own status.
    """

    def __init__(
        self, generation: Generation, face: Face, scheduler: Scheduler, metrics: LlmMetrics, settings: StreamSettings
    ) -> None:
        self._generation = generation
        self._face = face
        self._scheduler = scheduler
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
        async with self._scheduler.slot():
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            self._started = True
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
        await send({"type": "http.response.body", "body": b"", "more_body": False})

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
