"""An API that says back what reached it, for tests of what stands before it: `uvicorn tests.integration.echo_app:app`."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from starlette.types import Message, Receive, Scope, Send

# Paths that are streams at the edge: one event, then silence until the client goes.
STREAMS = frozenset({"/api/chat", "/v1/chat/completions", "/v1/completions", "/api/jobs/1/events"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await _echo_messages(receive, send)
    elif scope["type"] == "http" and scope["path"] in STREAMS:
        await _stream(receive, send)
    elif scope["type"] == "http" and scope["path"] == "/api/refuse-at-once":
        await _answer(send, 401, {"code": "not_authenticated"})
    elif scope["type"] == "http":
        await _answer(send, 200, await _seen(scope, receive))


async def _seen(scope: Scope, receive: Receive) -> dict[str, Any]:
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        body = message.get("body", b"")
        digest.update(body)
        size += len(body)
        more = message.get("more_body", False)
    return {
        "pid": os.getpid(),
        "method": scope["method"],
        "target": scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else ""),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "size": size,
        "sha256": digest.hexdigest(),
    }


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"of-the-api"), (b"referrer-policy", b"api")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _stream(receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"event: first\ndata: {}\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def _echo_messages(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message: Message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
