"""LLM behind a real uvicorn, with a backend that tests hold back: for what is hard to provoke with a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from services.llm.app import create_app
from services.llm.backends.base import Facts, Piece, Prompt
from services.llm.candidate import Candidate
from services.llm.catalog import FixedModel
from services.llm.host import ModelHost
from services.llm.main import DrainingServer
from services.llm.metrics import LlmMetrics
from sluice.settings import LlmServiceSettings
from sluice.testing.service_process import free_port

POLL_SECONDS = 0.01
POLLS = 3000


class GatedAnswer:
    """What a `GatedBackend` has read."""

    def __init__(self, backend: GatedBackend, prompt: Prompt) -> None:
        self._backend = backend
        self._asked = prompt.messages[-1].content
        self.prompt_tokens = len(self._asked.split())
        self.max_tokens = prompt.max_tokens

    async def pieces(self) -> AsyncGenerator[Piece | Facts, None]:
        asked, backend = self._asked, self._backend
        backend.began.append(asked)
        try:
            for word in ("one ", "two ", "three"):
                await backend.gate.wait()
                yield Piece(word, tokens=1)
                if asked == "broken":
                    raise ArithmeticError("the weights are cursed")
            while asked == "endless":
                yield Piece("x" * 65_536, tokens=1)
                await asyncio.sleep(0)
        finally:
            backend.closed.append(asked)


class GatedBackend:
    """Says "one two three", each word only while its gate is open, and remembers whom it served.

    The last user message can ask for more: `endless` never ends, `broken` fails after the first word.
    """

    name, responsive, context_tokens = "gated", True, 1000

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.gate = asyncio.Event()
        self.gate.set()
        self.began: list[str] = []
        self.closed: list[str] = []

    async def tokens(self, text: str) -> list[str]:
        return text.split()

    async def prepare(self, prompt: Prompt) -> GatedAnswer:
        return GatedAnswer(self, prompt)

    def stats(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass


class Served:
    """A client of a service with a gated backend."""

    def __init__(self, http: httpx.AsyncClient, backend: GatedBackend, host: ModelHost, server: DrainingServer) -> None:
        self.http, self.backend, self.host, self.server = http, backend, host, server

    async def ask(self, question: str, **body: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json=asked(question, **body))

    async def until_stats(self, **expected: object) -> None:
        for _ in range(POLLS):
            stats = (await self.http.get("/stats")).json()
            if expected.items() <= stats.items():
                return
            await asyncio.sleep(POLL_SECONDS)
        pytest.fail(f"{stats} never became {expected}")


def asked(question: str, **body: Any) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": question}], **body}


def events(stream: str) -> list[Any]:
    contents = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    return [content if content == "[DONE]" else json.loads(content) for content in contents]


def text_of(chunks: list[Any]) -> str:
    return "".join(c["delta"].get("content", "") for chunk in chunks if chunk != "[DONE]" for c in chunk["choices"])


@asynccontextmanager
async def serving(slots: int, *, drain_seconds: float = 60, **settings: Any) -> AsyncIterator[Served]:
    config = LlmServiceSettings(port=free_port(), **settings)
    metrics, backend = LlmMetrics(), GatedBackend(slots)
    host = ModelHost(FixedModel(Candidate("gated", lambda: backend)), config, metrics)
    app = create_app(config, host, metrics, on_failure=lambda: pytest.fail("not loaded"))
    server = DrainingServer(app, config, host, drain_seconds=drain_seconds)
    running = asyncio.create_task(server.serve())
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=f"http://{config.host}:{config.port}", timeout=60, limits=limits) as http:
        for _ in range(POLLS):
            if server.started:
                break
            await asyncio.sleep(POLL_SECONDS)
        yield Served(http, backend, host, server)
        backend.gate.set()
    server.should_exit = True
    await running


def with_gated_backend(case: Callable[[Served], Awaitable[None]], *, slots: int = 1, **settings: Any) -> None:
    async def run() -> None:
        async with serving(slots, **settings) as served:
            await case(served)

    asyncio.run(run())
