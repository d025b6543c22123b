"""EMB as the core sees it: texts in, vectors out, and the tokenizer to count with."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import httpx

from sluice import telemetry
from sluice.errors import Invalid, TemporarilyUnavailable
from sluice.settings import EmbeddingClientSettings
from sluice.wire.embeddings import (
    EmbeddingModelList,
    EmbeddingRequest,
    EmbeddingResponse,
    InputType,
    vector_from_base64,
)

_MODEL_FRESH_SECONDS = 60.0
_CONNECT_SECONDS = 3.0
_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class EmbeddingModel:
    """The model that makes the vectors. Vectors of different versions must not be compared."""

    alias: str
    version: str
    dimension: int
    max_tokens: int


@dataclass(frozen=True)
class Embedded:
    """Vectors of unit length, in the order of the texts, and what made them."""

    vectors: list[list[float]]
    model_version: str
    tokens: int = 0
    truncated: tuple[int, ...] = ()


class EmbeddingClient(Protocol):
    """Whoever embeds. Every method raises `TemporarilyUnavailable` while that is not possible."""

    def model(self) -> EmbeddingModel:
        """The model in use; may be a minute old."""

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Embedded:
        """A vector for each text; no text, no request. `Invalid` if a text is refused for what it is."""

    def tokenizer(self) -> bytes:
        """The model's tokenizer as JSON, to be read by the library `tokenizers`; it neither cuts nor pads."""


class HttpEmbeddingClient:
    """An `EmbeddingClient` over HTTP. One may be used by many threads."""

    def __init__(self, settings: EmbeddingClientSettings, *, alias: str | None = None, url: str | None = None) -> None:
        """For the default model, unless `alias` and `url` say otherwise."""
        self._alias = alias or settings.alias
        self._http = httpx.Client(
            base_url=url or settings.url, timeout=httpx.Timeout(settings.timeout, connect=_CONNECT_SECONDS)
        )
        self._lock = threading.Lock()
        self._model: EmbeddingModel | None = None
        self._model_read_at = 0.0
        self._tokenizer = b""
        self._tokenizer_etag = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connections."""
        self._http.close()

    def model(self) -> EmbeddingModel:
        """The model in use; may be a minute old, unless `embed` has met another one since."""
        with self._lock:
            if self._model is None or time.monotonic() - self._model_read_at > _MODEL_FRESH_SECONDS:
                self._model = self._read_model()
                self._model_read_at = time.monotonic()
            return self._model

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Embedded:
        """A vector for each text; no text, no request."""
        if not texts:
            return Embedded(vectors=[], model_version=self.model().version)
        request = EmbeddingRequest(
            model=self._alias, input=list(texts), encoding_format="base64", input_type=input_type
        )
        body = request.model_dump(mode="json", exclude_none=True)
        response = EmbeddingResponse.model_validate_json(self._send("POST", "/v1/embeddings", json=body).content)
        self._notice(response.model_version)
        items = sorted(response.data, key=lambda item: item.index)
        return Embedded(
            # Base64 was asked for, so a list of numbers can only come from a server that is not EMB.
            vectors=[vector_from_base64(e) if isinstance(e := item.embedding, str) else e for item in items],
            model_version=response.model_version,
            tokens=response.usage.total_tokens,
            truncated=tuple(response.truncated),
        )

    def tokenizer(self) -> bytes:
        """The model's tokenizer as JSON; read again only when the model has changed."""
        with self._lock:
            headers = {"if-none-match": self._tokenizer_etag} if self._tokenizer_etag else {}
            response = self._send("GET", f"/v1/models/{self._alias}/tokenizer", headers=headers)
            if response.status_code != httpx.codes.NOT_MODIFIED:
                self._tokenizer, self._tokenizer_etag = response.content, response.headers.get("etag", "")
            return self._tokenizer

    def _notice(self, version: str) -> None:
        """Ask again which model there is, should another one have answered than was known."""
        with self._lock:
            if self._model is not None and self._model.version != version:
                self._model = None

    def _read_model(self) -> EmbeddingModel:
        listed = EmbeddingModelList.model_validate_json(self._send("GET", "/v1/models").content)
        for card in listed.data:
            if card.id == self._alias:
                return EmbeddingModel(
                    alias=card.id, version=card.version, dimension=card.dimension, max_tokens=card.max_tokens
                )
        raise TemporarilyUnavailable(f"EMB has no model {self._alias!r}.", code="embedder_unavailable")

    def _send(self, method: str, path: str, *, headers: dict[str, str] | None = None, **content: Any) -> httpx.Response:
        sent = {**(headers or {}), **telemetry.http_headers()}
        try:
            response = self._http.request(method, path, headers=sent, **content)
        except httpx.TransportError as error:
            raise TemporarilyUnavailable(
                f"EMB does not answer: {type(error).__name__}.", code="embedder_unavailable", retry_after=_RETRY_SECONDS
            ) from error
        if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
            return response
        raise _refusal(response)


def embedding_clients(settings: EmbeddingClientSettings) -> Mapping[str, HttpEmbeddingClient]:
    """A client for each alias that chunks and questions are embedded under, the default one first."""
    further = {
        alias: HttpEmbeddingClient(settings, alias=alias, url=model.url)
        for alias, model in settings.more_aliases.items()
    }
    return {settings.alias: HttpEmbeddingClient(settings), **further}


def _refusal(response: httpx.Response) -> Invalid | TemporarilyUnavailable:
    detail = f"EMB answered {response.status_code}: {_detail(response)}"
    if response.status_code in {
        httpx.codes.BAD_REQUEST,
        httpx.codes.REQUEST_ENTITY_TOO_LARGE,
        httpx.codes.UNPROCESSABLE_ENTITY,
    }:
        return Invalid(detail, code="embedding_refused")
    return TemporarilyUnavailable(detail, code="embedder_unavailable", retry_after=_retry_after(response))


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return _RETRY_SECONDS
