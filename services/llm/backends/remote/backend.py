"""A server with OpenAI's chat completions, or GigaChat's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from services.llm.backends.base import Facts, Piece, Prompt, Sampling
from services.llm.backends.remote.breaker import CircuitBreaker
from services.llm.backends.remote.credentials import ApiKey, Credentials, GigaChatToken
from services.llm.candidate import Candidate
from sluice import telemetry
from sluice.errors import SluiceError, TemporarilyUnavailable
from sluice.settings import LlmServiceSettings, SettingsError
from sluice.wire.asgi import Malformed
from sluice.wire.completions import FinishReason, Usage

_CONNECT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 2.0
_LONGEST_PAUSE: Final = 10.0
_DATA: Final = "data:"
_DONE: Final = "[DONE]"
# A prompt's tokens are the server's business; for the queue, a token is taken for this many characters.
_CHARACTERS_PER_TOKEN: Final = 3
_WORTH_ANOTHER_TRY: Final = {429, 502, 503, 504}
_REFUSALS: Final = {400, 404, 413, 422}


class _Retryable(Exception):
    """Nothing of an answer was received, and the next attempt may succeed."""

    def __init__(self, detail: str, retry_after: float = _RETRY_SECONDS) -> None:
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(detail)


class _Delta(BaseModel):
    model_config = ConfigDict(extra="ignore")

    content: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")

    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(BaseModel):
    model_config = ConfigDict(extra="ignore")

    choices: list[_Choice] = []
    usage: Usage | None = None


class RemoteBackend:
    """Passes conversations on. Each failure counts; a server that keeps failing is left alone for a while."""

    name = "remote"
    responsive = True

    def __init__(self, settings: LlmServiceSettings, breaker: CircuitBreaker | None = None) -> None:
        if settings.remote_url is None or settings.remote_model is None:
            raise SettingsError("SLUICE_LLM_BACKEND is remote: set SLUICE_LLM_REMOTE_URL and SLUICE_LLM_REMOTE_MODEL.")
        self.slots = settings.sequences
        self.context_tokens = settings.max_prompt_tokens
        self._settings = settings
        self._breaker = breaker or CircuitBreaker()
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.remote_timeout, connect=_CONNECT_SECONDS),
            verify=str(settings.remote_ca) if settings.remote_ca else True,
        )
        self._credentials = _credentials(settings, self._http)
        self._failures = 0

    def tokens(self, text: str) -> list[str]:  # noqa: ARG002 - of the protocol
        """Not known here."""
        raise Malformed("The model is remote, and its tokens are not known here.", code="unsupported_parameter")

    async def prepare(self, prompt: Prompt) -> RemoteAnswer:
        """Put the request into the server's words; `Malformed` if it has none for it."""
        count = sum(len(message.content) for message in prompt.messages) // _CHARACTERS_PER_TOKEN
        if count > self.context_tokens:
            raise Malformed(
                f"The prompt has about {count} tokens; {self.context_tokens} are accepted.",
                code="context_length_exceeded",
                param="messages",
            )
        return RemoteAnswer(self, self._body(prompt), count, prompt.max_tokens)

    def stats(self) -> dict[str, float]:
        """Failures, and whether the server is left alone now."""
        return {"failures_total": self._failures, "circuit_open": float(self._breaker.is_open)}

    async def close(self) -> None:
        """Give up the connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def lines(self, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of the server's answer. Attempts are repeated until the first of them is there, not after."""
        self._breaker.enter()
        try:
            response = await self._answered(body)
            try:
                yield response.aiter_lines()
            finally:
                await response.aclose()
        except (httpx.HTTPError, TemporarilyUnavailable) as error:
            self._count_failure(error)
            if isinstance(error, SluiceError):
                raise
            raise _unavailable(f"The remote model broke off: {type(error).__name__}.") from error
        except SluiceError:
            # The request was refused for what it is: the server is well.
            self._breaker.succeeded()
            raise
        except BaseException:
            self._breaker.gave_up()
            raise
        self._breaker.succeeded()

    async def _answered(self, body: dict[str, Any]) -> httpx.Response:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._settings.remote_attempts),
            wait=wait_random_exponential(multiplier=self._settings.remote_backoff_seconds, max=_LONGEST_PAUSE),
            retry=retry_if_exception_type(_Retryable),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._asked(body)
        except _Retryable as error:
            raise _unavailable(error.detail, error.retry_after) from error
        raise AssertionError("tenacity returns or raises")

    async def _asked(self, body: dict[str, Any]) -> httpx.Response:
        try:
            response = await self._sent(body)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                # A token may have been taken back before its time: one more try with a new one.
                await response.aclose()
                self._credentials.refused()
                response = await self._sent(body)
        except httpx.TransportError as error:
            raise _Retryable(f"The remote model does not answer: {type(error).__name__}.") from error
        except httpx.HTTPStatusError as error:
            raise _Retryable(f"The remote sign-in answered {error.response.status_code}.") from error
        if response.is_success:
            return response
        await response.aread()
        await response.aclose()
        raise _refusal(response)

    async def _sent(self, body: dict[str, Any]) -> httpx.Response:
        headers = await self._credentials.header()
        if request_id := telemetry.current_request_id():
            headers = {**headers, "x-request-id": request_id}
        url = f"{self._settings.remote_url}/chat/completions"
        request = self._http.build_request("POST", url, json=body, headers=headers)
        return await self._http.send(request, stream=True)

    def _count_failure(self, error: Exception) -> None:
        self._failures += 1
        self._breaker.failed()
        telemetry.logger().warning("remote.failed", error=type(error).__name__, detail=str(error))

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        sampling, usual = prompt.sampling, Sampling()
        local = [
            name for name in ("top_k", "min_p", "repeat_penalty") if getattr(sampling, name) != getattr(usual, name)
        ]
        if prompt.grammar is not None:
            local.append("grammar")
        if prompt.raw or local:
            what = local[0] if local else "prompt"
            raise Malformed(f"The remote model does not take {what}.", code="unsupported_parameter", param=what)
        body: dict[str, Any] = {
            "model": self._settings.remote_model,
            "messages": [message.model_dump() for message in prompt.messages],
            "stream": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        form = prompt.response_format
        optional = {
            "max_tokens": prompt.max_tokens,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty or None,
            "frequency_penalty": sampling.frequency_penalty or None,
            "response_format": form.model_dump(by_alias=True, exclude_none=True) if form else None,
        }
        if self._settings.remote_kind == "openai":
            body["stream_options"] = {"include_usage": True}
        elif unknown := [name for name, value in optional.items() if value is not None and name != "max_tokens"]:
            raise Malformed(f"GigaChat does not take {unknown[0]}.", code="unsupported_parameter", param=unknown[0])
        return body | {name: value for name, value in optional.items() if value is not None}


class RemoteAnswer:
    """A request in the server's words."""

    def __init__(
        self, backend: RemoteBackend, body: dict[str, Any], prompt_tokens: int, max_tokens: int | None
    ) -> None:
        self._backend = backend
        self._body = body
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens

    async def pieces(self) -> AsyncGenerator[Piece | Facts, None]:
        """The answer as the server streams it. Closing the generator closes the connection."""
        reason: FinishReason | None = None
        async with self._backend.lines(self._body) as lines:
            async for line in lines:
                if not line.startswith(_DATA):
                    continue
                content = line.removeprefix(_DATA).strip()
                if content == _DONE:
                    break
                chunk = _read(content)
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield Piece(choice.delta.content, tokens=1)
                    reason = _reason(choice.finish_reason) or reason
                if chunk.usage is not None:
                    yield Facts(usage=chunk.usage)
            if reason is None:
                raise _unavailable("The remote model's answer ended in the middle.")
        yield Facts(finish_reason=reason)


def candidate(settings: LlmServiceSettings) -> Candidate:
    """The server that the settings name."""
    if settings.remote_url is None or settings.remote_model is None:
        raise SettingsError("SLUICE_LLM_BACKEND is remote: set SLUICE_LLM_REMOTE_URL and SLUICE_LLM_REMOTE_MODEL.")
    if settings.remote_kind == "gigachat" and (settings.remote_auth_url is None or settings.remote_key is None):
        raise SettingsError(
            "SLUICE_LLM_REMOTE_KIND is gigachat: set SLUICE_LLM_REMOTE_AUTH_URL and SLUICE_LLM_REMOTE_KEY."
        )
    return Candidate(f"remote:{settings.remote_model}", lambda: RemoteBackend(settings))


def _credentials(settings: LlmServiceSettings, http: httpx.AsyncClient) -> Credentials:
    key = settings.remote_key.get_secret_value() if settings.remote_key else None
    if settings.remote_kind == "gigachat":
        return GigaChatToken(http, settings.remote_auth_url or "", key or "", settings.remote_scope)
    return ApiKey(key)


def _read(content: str) -> _Chunk:
    try:
        return _Chunk.model_validate_json(content)
    except ValidationError as error:
        raise _unavailable("The remote model sent what is no chunk of an answer.") from error


def _reason(said: str | None) -> FinishReason | None:
    if said is None:
        return None
    return "length" if said == "length" else "stop"


def _refusal(response: httpx.Response) -> Exception:
    status = response.status_code
    detail = f"The remote model answered {status}: {response.text[:300]}"
    if status in _REFUSALS:
        return Malformed(detail, code="remote_refused")
    if status in _WORTH_ANOTHER_TRY:
        after = response.headers.get("retry-after", "")
        return _Retryable(detail, float(after) if after.isdigit() else _RETRY_SECONDS)
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return TemporarilyUnavailable(f"{detail}. Look at SLUICE_LLM_REMOTE_KEY.", code="remote_unauthorized")
    return _unavailable(detail)


def _unavailable(detail: str, retry_after: float = _RETRY_SECONDS) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(detail, code="remote_unavailable", retry_after=retry_after)
