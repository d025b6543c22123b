"""The server, as far as HTTP goes: attempts, refusals, and when to leave it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from services.llm.backends.remote.breaker import CircuitBreaker
from services.llm.backends.remote.credentials import ApiKey, Credentials, GigaChatToken
from sluice import telemetry
from sluice.errors import SluiceError, TemporarilyUnavailable
from sluice.settings import LlmServiceSettings
from sluice.wire.asgi import Malformed

_CONNECT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 2.0
_LONGEST_PAUSE: Final = 10.0
_WORTH_ANOTHER_TRY: Final = {429, 502, 503, 504}
_REFUSALS: Final = {400, 404, 413, 422}


class _Retryable(Exception):
    """Nothing of an answer was received, and the next attempt may succeed."""

    def __init__(self, detail: str, retry_after: float = _RETRY_SECONDS) -> None:
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(detail)


class RemoteServer:
    """Answers requests. Each failure counts; a server that keeps failing is left alone for a while."""

    def __init__(self, settings: LlmServiceSettings, breaker: CircuitBreaker) -> None:
        self._settings = settings
        self._breaker = breaker
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.remote_timeout, connect=_CONNECT_SECONDS),
            verify=str(settings.remote_ca) if settings.remote_ca else True,
        )
        self._credentials = _credentials(settings, self._http)
        self._failures = 0

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
        lines: _Lines | None = None
        try:
            response = await self._answered(body)
            lines = _Lines(response)
            try:
                yield lines.all()
            finally:
                await response.aclose()
        except (httpx.HTTPError, TemporarilyUnavailable) as error:
            self._count_failure(error)
            if isinstance(error, SluiceError):
                raise
            raise unavailable(f"The remote model broke off: {type(error).__name__}.") from error
        except SluiceError:
            # The request was refused for what it is: the server is well.
            self._breaker.succeeded()
            raise
        except BaseException:
            # Whoever leaves, at a stop string or a limit of tokens for one, says something of the server only if it
            # has begun to answer.
            if lines is not None and lines.has_begun:
                self._breaker.succeeded()
            else:
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
            raise unavailable(error.detail, error.retry_after) from error
        raise AssertionError("tenacity returns or raises")

    async def _asked(self, body: dict[str, Any]) -> httpx.Response:
        try:
            header = await self._credentials.header()
            response = await self._sent(body, header)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                # A token may have been taken back before its time: one more try with a new one.
                await response.aclose()
                self._credentials.refused(header)
                response = await self._sent(body, await self._credentials.header())
        except httpx.TransportError as error:
            raise _Retryable(f"The remote model does not answer: {type(error).__name__}.") from error
        except httpx.HTTPStatusError as error:
            raise _Retryable(f"The remote sign-in answered {error.response.status_code}.") from error
        if response.is_success:
            return response
        await response.aread()
        await response.aclose()
        raise _refusal(response)

    async def _sent(self, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        if request_id := telemetry.current_request_id():
            headers = {**headers, "x-request-id": request_id}
        url = f"{self._settings.remote_url}/chat/completions"
        request = self._http.build_request("POST", url, json=body, headers=headers)
        return await self._http.send(request, stream=True)

    def _count_failure(self, error: Exception) -> None:
        self._failures += 1
        self._breaker.failed()
        telemetry.logger().warning("remote.failed", error=type(error).__name__, detail=str(error))


class _Lines:
    """The lines of an answer, and whether there was one."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.has_begun = False

    async def all(self) -> AsyncIterator[str]:
        async for line in self._response.aiter_lines():
            self.has_begun = True
            yield line


def _credentials(settings: LlmServiceSettings, http: httpx.AsyncClient) -> Credentials:
    key = settings.remote_key.get_secret_value() if settings.remote_key else None
    if settings.remote_kind == "gigachat":
        return GigaChatToken(http, settings.remote_auth_url or "", key or "", settings.remote_scope)
    return ApiKey(key)


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
    return unavailable(detail)


def unavailable(detail: str, retry_after: float = _RETRY_SECONDS) -> TemporarilyUnavailable:
    """The server cannot be had, or does not do what it should."""
    return TemporarilyUnavailable(detail, code="remote_unavailable", retry_after=retry_after)
