"""LLM over HTTP: OpenAI's chat completions and completions, health, metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.llm.answering import StreamedAnswer, StreamSettings, WholeAnswer
from services.llm.backends.base import NumberedTokens
from services.llm.faces import ChatFace, TextFace
from services.llm.host import ModelHost
from services.llm.metrics import LlmMetrics
from services.llm.requests import Task, require_understood
from sluice import telemetry
from sluice.errors import Invalid, NotFound, SluiceError
from sluice.model_store.manifest import Version
from sluice.settings import LlmServiceSettings
from sluice.wire.asgi import (
    CLIENT_CLOSED_REQUEST,
    Application,
    ClientGone,
    RequestLog,
    json_object,
    problem_for,
    read_body,
    validated,
)
from sluice.wire.completions import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionModelCard,
    CompletionModelList,
    CompletionRequest,
    GenerationParameters,
    TokenizeRequest,
    TokenizeResponse,
)

# More fills no model's context, and its list of tokens would keep the event loop busy.
_MOST_CHARACTERS_TO_TOKENIZE: Final = 500_000

RequestT = TypeVar("RequestT", ChatCompletionRequest, CompletionRequest)


def create_app(
    settings: LlmServiceSettings, host: ModelHost, metrics: LlmMetrics, *, on_failure: Callable[[], None]
) -> Application:
    """The service around a model. `on_failure` is called when it cannot be loaded, or is stuck for good."""
    endpoints = Endpoints(settings, host, metrics)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat_completions, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
            Route("/tokenize", endpoints.tokenize, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{alias}:activate", endpoints.activate, methods=["POST"]),
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
        lifespan=partial(_lifespan, host, on_failure),
    )
    return RequestLog(app, metrics.record_request)


class Endpoints:
    """One method per route."""

    def __init__(self, settings: LlmServiceSettings, host: ModelHost, metrics: LlmMetrics) -> None:
        self._settings = settings
        self._host = host
        self._metrics = metrics
        self._since = int(time.time())

    async def chat_completions(self, request: Request) -> Application:
        """`POST /v1/chat/completions`."""
        wanted = await self._read(request, ChatCompletionRequest)
        return self._answer(wanted, Task(wanted, wanted.messages, ChatFace, self._metrics))

    async def completions(self, request: Request) -> Application:
        """`POST /v1/completions`."""
        wanted = await self._read(request, CompletionRequest)
        messages = [ChatMessage(role="user", content=wanted.prompt)]
        return self._answer(wanted, Task(wanted, messages, TextFace, self._metrics, raw=True))

    async def tokenize(self, request: Request) -> Response:
        """`POST /tokenize`: how the backend splits a prompt, or the contents of messages."""
        body = await read_body(request.stream(), self._settings.max_request_bytes)
        wanted = validated(TokenizeRequest, json_object(body))
        if wanted.model is not None:
            self._require_model(wanted.model)
        if (wanted.prompt is None) == (wanted.messages is None):
            raise Invalid("Send either `prompt` or `messages`.", param="prompt")
        texts = [wanted.prompt] if wanted.prompt is not None else [m.content for m in wanted.messages or ()]
        if sum(map(len, texts)) > _MOST_CHARACTERS_TO_TOKENIZE:
            raise Invalid(
                f"The text is longer than {_MOST_CHARACTERS_TO_TOKENIZE} characters. Send it in parts.", param="prompt"
            )
        with self._host.using() as served:
            backend = served.backend
            async with served.scheduler.reading():
                numbers: list[int] | None = None
                if isinstance(backend, NumberedTokens):
                    numbered = [token for text in texts for token in await backend.numbered_tokens(text)]
                    numbers, tokens = [number for number, _ in numbered], [piece for _, piece in numbered]
                else:
                    tokens = [token for text in texts for token in await backend.tokens(text)]
        response = TokenizeResponse(
            count=len(tokens), max_model_len=backend.context_tokens, tokens=numbers, token_strs=tokens
        )
        return JSONResponse(response.model_dump(mode="json"))

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        card = CompletionModelCard(
            id=self._settings.model,
            created=self._since,
            version=self._host.current.name,
            backend=self._host.current.backend.name,
            max_model_len=self._host.current.backend.context_tokens,
        )
        return JSONResponse(CompletionModelList(data=[card]).model_dump(mode="json"))

    async def activate(self, request: Request) -> Response:
        """`POST /v1/models/{alias}:activate` (internal): exchange the model while requests run.

        The body may name one, `{"name": ..., "version": ...}`; without it, the one that the alias means now.
        """
        alias = request.path_params["alias"]
        if alias != self._settings.model:
            raise NotFound(f"No alias {alias!r}; this service has {self._settings.model!r}.", code="alias_not_found")
        body = await read_body(request.stream(), self._settings.max_request_bytes)
        wanted = validated(Version, json_object(body)) if body else None
        served = await self._host.activate(wanted)
        return JSONResponse({"alias": alias, "model": served.name})

    async def healthz(self, _: Request) -> Response:
        """The event loop is alive."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Requests can be served now."""
        self._host.require_ready()
        return JSONResponse({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def stats(self, _: Request) -> Response:
        """Facts about this moment."""
        return JSONResponse(self._host.stats())

    async def config(self, _: Request) -> Response:
        """The settings; the remote model's key is hidden."""
        return JSONResponse(self._settings.model_dump(mode="json"))

    async def _read(self, request: Request, kind: type[RequestT]) -> RequestT:
        content = json_object(await read_body(request.stream(), self._settings.max_request_bytes))
        require_understood(content, kind)
        wanted = validated(kind, content)
        self._require_model(wanted.model)
        return wanted

    def _require_model(self, model: str) -> None:
        if model not in (self._settings.model, self._host.current.name):
            raise NotFound(
                f"No model {model!r}; this service has {self._settings.model!r}.", code="model_not_found", param="model"
            )

    def _answer(self, wanted: GenerationParameters, task: Task) -> Application:
        if not wanted.stream:
            return WholeAnswer(task, self._host, self._metrics)
        stream = StreamSettings(wanted.wants_usage, self._settings.ping_seconds, self._settings.reader_seconds)
        return StreamedAnswer(task, self._host, self._metrics, stream)


@asynccontextmanager
async def _lifespan(host: ModelHost, on_failure: Callable[[], None], _: Starlette) -> AsyncIterator[None]:
    """Load the model beside the first requests, which are told to wait; free it at the end."""
    loading = asyncio.create_task(_load(host, on_failure))
    beside = [asyncio.create_task(host.follow()), asyncio.create_task(host.watch(on_failure))]
    try:
        yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(loading, *beside, return_exceptions=True)
        await host.close()


async def _load(host: ModelHost, on_failure: Callable[[], None]) -> None:
    try:
        await host.start()
    except SluiceError as error:
        telemetry.logger().error("model.load_failed", detail=error.detail)
        on_failure()
    except Exception:  # noqa: BLE001 - whatever it is, the process must say so and end
        telemetry.logger().exception("model.load_failed")
        on_failure()


def _on_error(request: Request, error: Exception) -> Response:
    found = problem_for(error, request.url.path)
    return Response(found.content(), status_code=found.status, headers=found.headers)


def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
