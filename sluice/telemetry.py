"""Logs: one JSON line per event, with the ids that tie it to a request, a job and a document. Never document text."""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import structlog

import sluice
from sluice.settings import TelemetrySettings

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,64}$")
# Ids of zeros alone are invalid; a later version may have more fields behind the flags.
_TRACEPARENT = re.compile(
    r"^(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(?:-.*)?$"
)


def configure_logging(service: str, settings: TelemetrySettings) -> None:
    """Send the logs of this process, its libraries' included, to stdout in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        _origin(service),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        # Straight to stdout: the way through `logging`, which libraries take below, costs twice as much.
        processors=[*shared, renderer],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Each of these logs a line per request or connection; ours say the same with ids.
    for noisy in ("httpx", "httpcore", "uvicorn.access", "botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _origin(service: str) -> Any:
    def add(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
        return {"service": service, "version": sluice.__version__, **event}

    return add


def logger() -> Any:
    """A logger whose events are names (`document.ready`) and whose facts are keyword arguments."""
    return structlog.get_logger()


def accept(request_id: str | None, traceparent: str | None) -> str:
    """Begin the work of a request under the ids that its sender gave, when they are well formed, or new ones.

    The id is returned. `traceparent` is that of W3C's Trace Context, level 1; our own part of the trace gets an id of
    its own, which is the parent of whatever this work sends on.
    """
    accepted = accepted_request_id(request_id)
    bind(request_id=accepted, **_trace(traceparent))
    return accepted


def accepted_request_id(offered: str | None) -> str:
    """The caller's request id when it is well formed, else a new one."""
    return offered if offered and _REQUEST_ID.match(offered) else uuid4().hex


def continue_work(headers: Mapping[str, Any]) -> None:
    """Go on with the work of the request that sent these headers (see `passed_on`); without any, with nobody's."""
    bind(request_id=headers.get("request_id"), **_trace(headers.get("traceparent")))


def passed_on() -> dict[str, str]:
    """What tells the next process whose work this is: `request_id` and `traceparent`, as far as they are known."""
    known = structlog.contextvars.get_contextvars()
    ids = {"request_id": known.get("request_id"), "traceparent": _traceparent(known)}
    return {name: value for name, value in ids.items() if value}


def http_headers() -> dict[str, str]:
    """The same, as the headers of an HTTP request."""
    return {name.replace("request_id", "x-request-id"): value for name, value in passed_on().items()}


def current_request_id() -> str | None:
    """The request that this work is done for, wherever it began."""
    return structlog.contextvars.get_contextvars().get("request_id")


def _trace(parent: str | None) -> dict[str, str]:
    given = _TRACEPARENT.match(parent or "")
    return {
        "trace_id": given["trace"] if given else secrets.token_hex(16),
        "span_id": secrets.token_hex(8),
        "trace_flags": given["flags"] if given else "00",
    }


def _traceparent(known: Mapping[str, Any]) -> str | None:
    return f"00-{known['trace_id']}-{known['span_id']}-{known['trace_flags']}" if "trace_id" in known else None


def bind(**facts: Any) -> None:
    """Put these facts on every later log line of this request or task."""
    structlog.contextvars.bind_contextvars(**{k: str(v) for k, v in facts.items() if v is not None})


def forget() -> None:
    """Drop the facts of the request or task that has ended."""
    structlog.contextvars.clear_contextvars()
