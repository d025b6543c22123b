"""EMB over HTTP: OpenAI's embeddings, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.emb.backends.base import Vectors
from services.emb.metrics import EmbMetrics
from services.emb.queue import Embedded, EmbeddingQueue
from sluice.errors import Conflict, Invalid, SluiceError, TemporarilyUnavailable, TooLarge
from sluice.settings import EmbServiceSettings
from sluice.wire.asgi import (
    CLIENT_CLOSED_REQUEST,
    Application,
    ClientGone,
    Malformed,
    RequestLog,
    json_object,
    problem_for,
    read_body,
    validated,
    while_connected,
)
from sluice.wire.embeddings import (
    EmbeddingModelCard,
    EmbeddingModelList,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
    vector_to_base64,
)


def create_app(
    settings: EmbServiceSettings, queue: EmbeddingQueue, metrics: EmbMetrics, on_failure: Callable[[], None]
) -> Application:
    """The service around a queue, which it starts and stops; `on_failure`: no model can be loaded, or it is stuck."""
    endpoints = Endpoints(settings, queue, metrics)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        queue.start(on_failure)
        yield
        queue.stop()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/embeddings", endpoints.embeddings, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models:reload", endpoints.reload, methods=["POST"]),
            Route("/v1/models/{alias}/tokenizer", endpoints.tokenizer),
            Route("/healthz", endpoints.healthz),
            Route("/readyz", endpoints.readyz),
            Route("/metrics", endpoints.metrics),
            Route("/stats", endpoints.stats),
            Route("/config", endpoints.config),
        ],
        exception_handlers={
            SluiceError: _on_error,
            HTTPException: _on_error,
            Exception: _on_error,
            ClientGone: _on_client_gone,
            ClientDisconnect: _on_client_gone,
        },
    )
    return RequestLog(app, metrics.record_request)


class Endpoints:
    """One method per route."""

    def __init__(self, settings: EmbServiceSettings, queue: EmbeddingQueue, metrics: EmbMetrics) -> None:
        self._settings = settings
        self._queue = queue
        self._metrics = metrics
        self._since = int(time.time())
        # Starlette's pool would grow to forty threads under load, which take turns at Python's lock.
        self._encoding = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encoder")

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        body = await read_body(request.stream(), self._settings.max_request_bytes)
        wanted = _embedding_request(json_object(body))
        model = self._queue.model(wanted.model)
        self._require_short(wanted.input)
        backend = model.backend
        if wanted.dimensions not in (None, backend.dimension):
            raise Invalid(f"This model has {backend.dimension} dimensions and no others.", param="dimensions")
        embedded = await while_connected(request.receive, self._queue.embed(model, wanted.input, wanted.input_type))
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._encoding, _response_body, wanted, embedded, backend.version)
        return Response(content, media_type="application/json")

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        self._queue.model(self._settings.alias)
        cards = [
            EmbeddingModelCard(
                id=alias,
                created=self._since,
                version=model.backend.version,
                dimension=model.backend.dimension,
                max_tokens=model.backend.max_tokens,
                languages=list(model.wanted.languages) if model.wanted.languages else None,
            )
            for alias, model in self._queue.models.by_alias().items()
        ]
        return JSONResponse(EmbeddingModelList(data=cards).model_dump(mode="json"))

    async def reload(self, _: Request) -> Response:
        """`POST /v1/models:reload`: load now what the models folder says, and answer when that is done."""
        changes = await self._queue.follow()
        told = {alias: {"outcome": each.outcome.value, "model": each.model} for alias, each in changes.items()}
        if failed := {alias: each.problem for alias, each in changes.items() if each.problem}:
            alias, problem = next(iter(failed.items()))
            raise Conflict(f"{alias}: {problem}", code="activation_failed", problems=failed, aliases=told)
        return JSONResponse({"aliases": told})

    async def tokenizer(self, request: Request) -> Response:
        """`GET /v1/models/{alias}/tokenizer`: for callers that count tokens."""
        backend = self._queue.model(request.path_params["alias"]).backend
        headers = {"etag": f'"{backend.version}"'}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(backend.tokenizer_json, media_type="application/json", headers=headers)

    async def healthz(self, _: Request) -> Response:
        """The event loop is alive."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Requests can be served now."""
        reason = self._queue.why_not_ready()
        if reason:
            raise TemporarilyUnavailable(reason, code="not_ready")
        return JSONResponse({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def stats(self, _: Request) -> Response:
        """Facts about this moment."""
        return JSONResponse(self._queue.stats())

    async def config(self, _: Request) -> Response:
        """The settings; EMB has no secrets."""
        return JSONResponse(self._settings.model_dump(mode="json"))

    def _require_short(self, texts: list[str]) -> None:
        limit = self._settings.max_text_chars
        for index, text in enumerate(texts):
            if len(text) > limit:
                raise TooLarge(
                    f"input[{index}] has {len(text)} characters; {limit} are accepted.", limit=limit, param="input"
                )


def _embedding_request(content: dict[str, Any]) -> EmbeddingRequest:
    given = content.get("input")
    if isinstance(given, list) and any(isinstance(item, int | list) for item in given):
        raise Malformed("Send text: token ids are not accepted as input.", param="input")
    return validated(EmbeddingRequest, content)


def _response_body(wanted: EmbeddingRequest, embedded: Embedded, version: str) -> bytes:
    rows = np.ascontiguousarray(embedded.vectors, dtype="<f4")
    response = EmbeddingResponse(
        data=[],
        model=wanted.model,
        model_version=version,
        usage=EmbeddingUsage(prompt_tokens=embedded.tokens, total_tokens=embedded.tokens),
        truncated=embedded.truncated,
    )
    # Item by item: a list of 2,048 vectors in one call would keep Python's lock, and health checks, for a long time.
    items = b",".join(_item(index, row, wanted.encoding_format) for index, row in enumerate(rows))
    return orjson.dumps(response.model_dump() | {"data": orjson.Fragment(b"[" + items + b"]")})


def _item(index: int, row: Vectors, encoding: str) -> bytes:
    vector = vector_to_base64(row.tobytes()) if encoding == "base64" else row
    item = {"object": "embedding", "index": index, "embedding": vector}
    return orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY)


def _on_error(request: Request, error: Exception) -> Response:
    found = problem_for(error, request.url.path)
    return Response(found.content(), status_code=found.status, headers=found.headers)


def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
