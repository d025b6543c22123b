"""LLM over HTTP: OpenAI's chat completions and completions, health, metrics."""

from __future__ import annotations

import time
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.llm.answering import StreamedAnswer, StreamSettings, WholeAnswer
from services.llm.backends.base import CompletionBackend, Prompt
from services.llm.faces import ChatFace, Face, TextFace
from services.llm.generation import Generation
from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
from sluice.errors import Invalid, NotFound, SluiceError, TemporarilyUnavailable
from sluice.settings import LlmServiceSettings
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
)
from sluice.wire.completions import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionModelCard,
    CompletionModelList,
    CompletionRequest,
    TokenizeRequest,
    TokenizeResponse,
)

RequestT = TypeVar("RequestT", ChatCompletionRequest, CompletionRequest)

# To ignore these would be to answer another request than the one that was made.
_REFUSED = {
    "audio": None,
    "best_of": 1,
    "echo": False,
    "function_call": None,
    "functions": [],
    "guided_json": None,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "n": 1,
    "response_format": {"type": "text"},
    "suffix": None,
    "tools": [],
    "top_logprobs": 0,
}


def create_app(
    settings: LlmServiceSettings, backend: CompletionBackend, scheduler: Scheduler, metrics: LlmMetrics
) -> Application:
    """The service around a backend."""
    endpoints = Endpoints(settings, backend, scheduler, metrics)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat_completions, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
            Route("/tokenize", endpoints.tokenize, methods=["POST"]),
            Route("/v1/models", endpoints.models),
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

    def __init__(
        self, settings: LlmServiceSettings, backend: CompletionBackend, scheduler: Scheduler, metrics: LlmMetrics
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._scheduler = scheduler
        self._metrics = metrics
        self._since = int(time.time())

    async def chat_completions(self, request: Request) -> Application:
        """`POST /v1/chat/completions`."""
        wanted = await self._read(request, ChatCompletionRequest)
        generation = self._generation(wanted, wanted.messages)
        return self._answer(wanted, generation, ChatFace(generation))

    async def completions(self, request: Request) -> Application:
        """`POST /v1/completions`."""
        wanted = await self._read(request, CompletionRequest)
        generation = self._generation(wanted, [ChatMessage(role="user", content=wanted.prompt)])
        return self._answer(wanted, generation, TextFace(generation))

    async def tokenize(self, request: Request) -> Response:
        """`POST /tokenize`: how the backend splits a prompt, or the contents of messages."""
        body = await read_body(request.stream(), self._settings.max_request_bytes)
        wanted = validated(TokenizeRequest, json_object(body))
        if wanted.model is not None:
            self._require_model(wanted.model)
        if (wanted.prompt is None) == (wanted.messages is None):
            raise Invalid("Send either `prompt` or `messages`.", param="prompt")
        texts = [wanted.prompt] if wanted.prompt is not None else [m.content for m in wanted.messages or ()]
        tokens = [token for text in texts for token in self._backend.tokens(text)]
        response = TokenizeResponse(
            count=len(tokens), max_model_len=self._settings.max_prompt_tokens, tokens=None, token_strs=tokens
        )
        return JSONResponse(response.model_dump(mode="json"))

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`."""
        card = CompletionModelCard(
            id=self._settings.model,
            created=self._since,
            backend=self._backend.name,
            max_model_len=self._settings.max_prompt_tokens,
        )
        return JSONResponse(CompletionModelList(data=[card]).model_dump(mode="json"))

    async def healthz(self, _: Request) -> Response:
        """The event loop is alive."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Requests can be served now."""
        if self._scheduler.draining:
            raise TemporarilyUnavailable("The service is shutting down.", code="not_ready")
        if not self._backend.responsive:
            raise TemporarilyUnavailable("The backend is stuck.", code="not_ready")
        return JSONResponse({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def stats(self, _: Request) -> Response:
        """Facts about this moment."""
        return JSONResponse({"backend": self._backend.name, **self._scheduler.stats()})

    async def config(self, _: Request) -> Response:
        """The settings; LLM has no secrets."""
        return JSONResponse(self._settings.model_dump(mode="json"))

    async def _read(self, request: Request, kind: type[RequestT]) -> RequestT:
        content = json_object(await read_body(request.stream(), self._settings.max_request_bytes))
        for name, harmless in _REFUSED.items():
            if content.get(name) not in (None, harmless):
                raise Malformed(f"{name} is not supported by this service.", code="unsupported_parameter", param=name)
        wanted = validated(kind, content)
        self._require_model(wanted.model)
        return wanted

    def _require_model(self, model: str) -> None:
        if model not in (self._settings.model, self._backend.name):
            raise NotFound(
                f"No model {model!r}; this service has {self._settings.model!r}.", code="model_not_found", param="model"
            )

    def _generation(self, wanted: ChatCompletionRequest | CompletionRequest, messages: list[ChatMessage]) -> Generation:
        prompt = Prompt(messages, wanted.documents, wanted.temperature, wanted.top_p, wanted.seed)
        generation = Generation(
            self._backend, prompt, stop=wanted.stop, max_tokens=wanted.token_limit, metrics=self._metrics
        )
        limit = self._settings.max_prompt_tokens
        if generation.prompt_tokens > limit:
            raise Malformed(
                f"The prompt has {generation.prompt_tokens} tokens; {limit} are accepted.",
                code="context_length_exceeded",
                param="messages",
            )
        return generation

    def _answer(
        self, wanted: ChatCompletionRequest | CompletionRequest, generation: Generation, face: Face
    ) -> Application:
        if not wanted.stream:
            return WholeAnswer(generation, face, self._scheduler, self._metrics)
        stream = StreamSettings(wanted.wants_usage, self._settings.ping_seconds, self._settings.reader_seconds)
        return StreamedAnswer(generation, face, self._scheduler, self._metrics, stream)


def _on_error(request: Request, error: Exception) -> Response:
    found = problem_for(error, request.url.path)
    return Response(found.content(), status_code=found.status, headers=found.headers)


def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
