"""A service that says what the test wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sluice.testing.service_process import free_port


class ScriptedService:
    """Says `stats` to whoever gets something, and `answer` to whoever posts something, after `seconds`."""

    def __init__(self, stats: dict[str, Any]) -> None:
        self.stats: Any = stats
        self.answer: tuple[int, Any] = (200, {})
        self.seconds = 0.0
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{free_port()}"

    def tell(self, _: Request) -> Response:
        return JSONResponse(self.stats)

    def obey(self, request: Request) -> Response:
        self.asked.append(request.url.path)
        time.sleep(self.seconds)
        status, body = self.answer
        return JSONResponse(body, status)

    @contextmanager
    def serving(self) -> Iterator[None]:
        routes = [Route("/{path:path}", self.tell), Route("/{path:path}", self.obey, methods=["POST"])]
        config = uvicorn.Config(
            Starlette(routes=routes), port=int(self.url.rpartition(":")[2]), log_config=None, lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
