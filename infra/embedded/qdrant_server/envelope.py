"""The envelope that Qdrant puts around every result and every refusal."""

from __future__ import annotations

import json
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from fastapi.responses import JSONResponse

from infra.embedded.qdrant_server.refusals import Refusal

_started: ContextVar[float | None] = ContextVar("started", default=None)


async def start_clock() -> None:
    """Note when the request came in; `async`, so that it is noted in the request's own context."""
    _started.set(perf_counter())


class Answer(JSONResponse):
    """A result, and the seconds that it took."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return _body({"result": content, "status": "ok"})


class RefusalAnswer(JSONResponse):
    """Why there is no result."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal), refusal.status)

    def render(self, content: Any) -> bytes:
        """The body."""
        return _body({"status": {"error": content}})


def _body(content: dict[str, Any]) -> bytes:
    now = perf_counter()
    timed = content | {"time": now - (_started.get() or now)}
    return json.dumps(timed, ensure_ascii=False, separators=(",", ":")).encode()
