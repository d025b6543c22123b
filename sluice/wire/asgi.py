"""What the model services share at their HTTP edge: request ids, errors, bodies with a limit, clients that leave.

Plain ASGI, no framework: a server or a framework calls these with its own `receive` and `send`.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sluice import telemetry
from sluice.errors import (
    Conflict,
    Invalid,
    NotFound,
    SluiceError,
    TemporarilyUnavailable,
    TooLarge,
    TooManyRequests,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Observe = Callable[[str, int, float], None]

Result = TypeVar("Result")
Body = TypeVar("Body", bound=BaseModel)

_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class Malformed(SluiceError):
    """The body is not what this route reads."""

    code = "malformed"


class ClientGone(Exception):
    """The client closed its connection before the answer was complete."""


CLIENT_CLOSED_REQUEST = 499
"""Status in logs and metrics of a request whose client left; nobody receives it."""

_SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR
_STATUS_OF: dict[type[SluiceError], HTTPStatus] = {
    Malformed: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    TemporarilyUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


@dataclass(frozen=True)
class Problem:
    """An error as it goes over the wire: problem+json (RFC 9457) that OpenAI clients can read as well."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/problem+json"})

    def content(self) -> bytes:
        """The body as JSON."""
        # Half a surrogate pair, in a name that somebody sent, has no bytes in UTF-8, but an escape in JSON.
        return json.dumps(self.body, ensure_ascii=False).encode(errors="backslashreplace")


def problem_for(error: Exception, instance: str) -> Problem:
    """The problem document of an error, with `Retry-After` in whole seconds where waiting helps.

    An exception of a web framework keeps the status it carries; anything unforeseen is a 500 that tells nothing.
    """
    if isinstance(error, SluiceError):
        status = next((_STATUS_OF[kind] for kind in type(error).__mro__ if kind in _STATUS_OF), _SERVER_ERROR)
        found = _problem(status, error.code, error.detail, instance, **error.facts)
        if isinstance(error, TooManyRequests | TemporarilyUnavailable):
            found.headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        return found
    status = HTTPStatus(getattr(error, "status_code", _SERVER_ERROR))
    if status is _SERVER_ERROR:
        return _problem(status, "error", "Something went wrong here; the log has the details.", instance)
    return _problem(status, status.name.lower(), f"{status.phrase}: {instance}", instance)


def _problem(status: HTTPStatus, code: str, detail: str, instance: str, **facts: Any) -> Problem:
    kind = "invalid_request_error"
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    elif status >= _SERVER_ERROR:
        kind = "server_error"
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "instance": instance,
        "code": code,
        "request_id": telemetry.current_request_id(),
        **facts,
        "error": {"message": detail, "type": kind, "code": code, "param": facts.get("param")},
    }
    return Problem(status=int(status), body=body)


async def read_body(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """The whole body; `TooLarge` as soon as it passes `limit` bytes."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is larger than {limit} bytes. Split the request.", limit=limit)
    return bytes(body)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body, or `Malformed`."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed("The body is not JSON in UTF-8.") from error
    if not isinstance(content, dict):
        raise Malformed("The body is JSON, but not an object.")
    return content


def validated(model: type[Body], content: dict[str, Any]) -> Body:
    """The content as `model`, or `Invalid` with a line for each member that is wrong."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = [{"loc": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        first = wrong[0]
        raise Invalid(f"{first['loc'] or 'body'}: {first['message']}", errors=wrong, param=first["loc"]) from error


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns; if the client leaves first, `work` is canceled and `ClientGone` raised.

    The body must have been read already: from then on `receive` has nothing to say but "disconnected".
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        # Nothing may outlive the request: what `work` holds (a place in a queue, a slot) is free when this returns.
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class RequestLog:
    """Give every request an id (the caller's when well formed), echo it, log the outcome and report it to `observe`."""

    def __init__(self, app: Application, observe: Observe) -> None:
        """`observe` gets the name of the endpoint (`unmatched` if none), the status and the seconds."""
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        telemetry.forget()
        request_id = telemetry.accept(_header(scope, b"x-request-id"), _header(scope, b"traceparent"))
        status = int(_SERVER_ERROR)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._report(scope, status, time.perf_counter() - began)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        self._observe(getattr(endpoint, "__name__", "unmatched"), status, seconds)
        if scope["path"] not in _QUIET_PATHS:
            telemetry.logger().info(
                "http.request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 1),
            )


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)
