"""EMB behind a real uvicorn, with a scripted model for what is hard to provoke with a real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from services.emb.app import create_app
from services.emb.backends.base import Vectors
from services.emb.catalog import WantedModel
from services.emb.main import DrainingServer
from services.emb.metrics import EmbMetrics
from services.emb.queue import EmbeddingQueue
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.settings import EmbServiceSettings
from sluice.testing.service_process import ServiceProcess, free_port
from sluice.wire.embeddings import InputType

POLL_SECONDS = 0.01
POLLS = 3000


class GatedModel:
    """Embeds only while its gate is open, and remembers what it was given. A token is a character."""

    version, form, dimension, max_tokens, tokenizer_json = "v1", "fake", 2, 10_000, b"{}"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.one_by_one = False
        """Whether the gate closes behind each batch."""
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        """Those that ever ran it."""
        self.vector = (1.0, 0.0)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        return [TokenizedText([ord(c) for c in text], truncated=False) for text in texts]

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        texts = ["".join(map(chr, text.ids)) for text in batch]
        self.threads.add(threading.get_ident())
        self.busy.set()
        self.gate.wait()
        if self.one_by_one:
            self.gate.clear()
        self.batches.append(texts)
        if "poison" in texts:
            raise ArithmeticError("this text breaks the model")
        return np.array([self.vector] * len(texts), dtype=np.float32)


def model_named(name: str) -> WantedModel:
    return WantedModel(name, name, "fake", 0, None, verified=Path)


class Wishes:
    """What the aliases are to mean, as a test changes it."""

    def __init__(self) -> None:
        self.models = {"default": model_named("first")}
        self.changes = 0

    def wanted(self) -> dict[str, WantedModel]:
        return dict(self.models)

    def changed_at(self) -> int:
        return self.changes


class Served:
    """A client of a service with a gated model."""

    def __init__(
        self, http: httpx.AsyncClient, model: GatedModel, queue: EmbeddingQueue, server: DrainingServer
    ) -> None:
        self.http, self.model, self.queue, self.server = http, model, queue, server

    async def embed(self, *texts: str, input_type: str = "document") -> httpx.Response:
        body = {"model": "default", "input": list(texts), "input_type": input_type}
        return await self.http.post("/v1/embeddings", json=body)

    async def occupy(self) -> asyncio.Task[httpx.Response]:
        """Keep the model busy until its gate opens."""
        self.model.gate.clear()
        self.model.busy.clear()
        first = asyncio.create_task(self.embed("occupied"))
        await asyncio.to_thread(self.model.busy.wait)
        return first

    async def let_one_batch_through(self) -> None:
        """Open the gate for the batch in the model, and return when the next one is in it."""
        self.model.one_by_one = True
        self.model.busy.clear()
        self.model.gate.set()
        await asyncio.to_thread(self.model.busy.wait)

    async def until_stats(self, **expected: object) -> None:
        await self.until_stats_of(self.http, **expected)

    @staticmethod
    async def until_stats_of(http: httpx.AsyncClient, **expected: object) -> None:
        for _ in range(POLLS):
            stats = (await http.get("/stats")).json()
            if expected.items() <= stats.items():
                return
            await asyncio.sleep(POLL_SECONDS)
        pytest.fail(f"{stats} never became {expected}")


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(POLLS):
        if condition():
            return
        await asyncio.sleep(POLL_SECONDS)
    pytest.fail("the condition never came true")


@asynccontextmanager
async def serving(
    load: Callable[[WantedModel], GatedModel],
    wishes: Wishes | None = None,
    *,
    drain_seconds: float = 60,
    **settings: Any,
) -> AsyncIterator[Served]:
    config = EmbServiceSettings(port=free_port(), **settings)
    metrics = EmbMetrics()
    queue = EmbeddingQueue(load, wishes or Wishes(), config, metrics)
    app = create_app(config, queue, metrics, on_failure=lambda: None)
    server = DrainingServer(app, config, queue, drain_seconds=drain_seconds)
    running = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://{config.host}:{config.port}", timeout=60) as http:
        await until(lambda: server.started)
        yield Served(http, GatedModel(), queue, server)
    server.should_exit = True
    await running


def with_gated_model(case: Callable[[Served], Awaitable[None]], **settings: Any) -> None:
    """Run a case against a service that has loaded its model."""
    model = GatedModel()

    async def run() -> None:
        async with serving(lambda _: model, **settings) as served:
            served.model = model
            await served.until_stats(state="ready")
            model.batches.clear()
            model.threads.clear()
            try:
                await case(served)
            finally:
                model.gate.set()

    asyncio.run(run())


def post(service: ServiceProcess, **body: Any) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/embeddings", json={"model": "default", **body}, timeout=60)


def vectors(service: ServiceProcess, *texts: str, model: str = "default") -> Vectors:
    answer = post(service, input=list(texts), model=model)
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]], dtype=np.float32)
