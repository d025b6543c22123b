"""Logs: one JSON line per event, with the ids that tie it to a request, a job and a document. Never document text."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any
from uuid import uuid4

import structlog

import sluice
from sluice.settings import TelemetrySettings

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{8,64}$")


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
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
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
    return structlog.stdlib.get_logger()


def accepted_request_id(offered: str | None) -> str:
    """The caller's request id when it is well formed, else a new one."""
    return offered if offered and _REQUEST_ID.match(offered) else uuid4().hex


def current_request_id() -> str | None:
    """The request that this work is done for, wherever it began."""
    return structlog.contextvars.get_contextvars().get("request_id")


def bind(**facts: Any) -> None:
    """Put these facts on every later log line of this request or task."""
    structlog.contextvars.bind_contextvars(**{k: str(v) for k, v in facts.items() if v is not None})


def forget() -> None:
    """Drop the facts of the request or task that has ended."""
    structlog.contextvars.clear_contextvars()
