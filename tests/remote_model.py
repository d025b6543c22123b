"""A server that speaks OpenAI's and GigaChat's protocol, and misbehaves on command."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sluice.testing.service_process import free_port

KEY = "authorization-key"


class RemoteModel:
    """Says `sentence` to everybody. Attributes are commands for the next requests, and what happened so far."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        self.port = free_port()
        self.faults: list[str] = []
        """For each of the next requests: a status, `cut`, `garbage`, `hang`, or `fine`; then all are fine."""
        self.finish_reason: str | None = None
        """Why its answers end; None: as they do."""
        self.bodies: list[dict[str, Any]] = []
        self.left = 0
        self.tokens: list[str] = []
        """Those that were sold; the last one is good."""
        self.token_seconds = 1800.0
        self.sign_ins = 0
        self.needs_token = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        fault = self.faults.pop(0) if self.faults else "fine"
        if self.needs_token and request.headers.get("authorization") != f"Bearer {self.tokens[-1]}":
            return JSONResponse({"message": "token expired"}, status_code=401)
        if fault.isdigit():
            return JSONResponse({"message": "as told"}, status_code=int(fault), headers={"retry-after": "7"})
        return StreamingResponse(self._events(self.bodies[-1], fault), media_type="text/event-stream")

    async def oauth(self, request: Request) -> Response:
        self.sign_ins += 1
        form = (await request.body()).decode()
        if request.headers.get("authorization") != f"Basic {KEY}" or "scope=" not in form:
            return JSONResponse({"message": "who are you"}, status_code=401)
        assert request.headers["rquid"]
        self.tokens.append(uuid4().hex)
        expires_at = int((time.time() + self.token_seconds) * 1000)
        return JSONResponse({"access_token": self.tokens[-1], "expires_at": expires_at})

    async def _events(self, body: dict[str, Any], fault: str) -> AsyncIterator[bytes]:
        words = [f"{word} " for word in self.sentence.split()]
        shown = words[: body.get("max_tokens", len(words))]
        try:
            for number, word in enumerate(shown):
                if fault == "garbage" and number == 2:
                    yield b"data: <html>\n\n"
                if fault == "cut" and number == 2:
                    return
                if fault == "hang" and number == 2:
                    await asyncio.sleep(60)
                yield _event(choices=[{"index": 0, "delta": {"content": word}}])
                await asyncio.sleep(0)
            reason = self.finish_reason or ("length" if len(shown) < len(words) else "stop")
            yield _event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
            counted = {"prompt_tokens": 11, "completion_tokens": len(shown), "total_tokens": 11 + len(shown)}
            yield _event(choices=[], usage=counted)
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise


def _event(**members: Any) -> bytes:
    return b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", **members}).encode() + b"\n\n"


@contextmanager
def remote_model(sentence: str) -> Iterator[RemoteModel]:
    """A running one, in a thread of its own."""
    model = RemoteModel(sentence)
    routes = [
        Route("/v1/chat/completions", model.chat, methods=["POST"]),
        Route("/oauth", model.oauth, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), port=model.port, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield model
    finally:
        server.should_exit = True
        thread.join()
