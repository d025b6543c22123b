"""Around every request: its id, its log line, its metrics, and a limit to its body. Plain ASGI.

Starlette's `BaseHTTPMiddleware` hides a client's going away from the route; an answer must stop when nobody reads it.
"""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.errors import unforeseen
from sluice.errors import TooLarge
from sluice.telemetry import accept, forget, logger

log = logger()
requests_total = Counter("http_requests_total", "Requests", ["method", "route", "status"])
request_duration = Histogram(
    "http_request_duration_seconds",
    "Time to the end of the response",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_CLIENT_GONE: Final = 499
JSON_LIMIT: Final = 1024 * 1024
# Boundaries, headers and fields around the file of a multipart upload.
FORM_OVERHEAD: Final = 64 * 1024


class Observed:
    """Gives each request an id, echoes it, and counts and logs how it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = accept(headers.get("x-request-id"), headers.get("traceparent"))
        started = time.perf_counter()
        status = _CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["X-Request-ID"] = request_id
                sent["X-Content-Type-Options"] = "nosniff"
                sent["Referrer-Policy"] = "no-referrer"
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("request.client_gone", path=scope["path"])
        except Exception:  # whatever it is: logged with its traceback here, and answered or raised on below
            log.exception("request.failed", path=scope["path"])
            if status != _CLIENT_GONE:
                # The response had begun; closing the connection is all that is left to say.
                raise
            await unforeseen(scope["path"])(scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - started)
            forget()

    @staticmethod
    def _record(scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        requests_total.labels(scope["method"], route, str(status)).inc()
        request_duration.labels(scope["method"], route).observe(seconds)
        if scope["path"] not in _QUIET:
            log.info("request", method=scope["method"], route=route, status=status, ms=round(seconds * 1000, 1))


class LimitedBody:
    """Refuses a body that is longer than its route reads, by its announced length or while it arrives."""

    def __init__(self, app: ASGIApp, *, upload_path: str, upload_limit: int) -> None:
        self._app = app
        self._upload_path = upload_path
        self._upload_limit = upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"] == self._upload_path
        limit = self._upload_limit if is_upload else JSON_LIMIT
        read_most = limit + FORM_OVERHEAD if is_upload else limit
        refusal = too_large if is_upload else _body_too_large
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdigit() and int(announced) > read_most:
            # Raised where the body is first read, so that it becomes a problem document like any other error.
            await self._app(scope, _refusing(refusal(limit, int(announced))), send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > read_most:
                raise refusal(limit, received)
            return message

        await self._app(scope, counted, send)


def too_large(limit: int, actual: int) -> TooLarge:
    """The error for a body of `actual` bytes where `limit` are accepted."""
    return TooLarge(
        f"The request has {actual:,} bytes or more; files of up to {limit:,} are accepted here. Split the document, "
        "or ask an administrator to raise SLUICE_INGEST_MAX_UPLOAD_BYTES.",
        limit=limit,
        actual=actual,
    )


def _body_too_large(limit: int, actual: int) -> TooLarge:
    return TooLarge(f"The body has {actual:,} bytes; this route reads {limit:,}.", limit=limit, actual=actual)


def _refusing(error: TooLarge) -> Receive:
    async def refuse() -> Message:
        raise error

    return refuse
