"""Every error as a problem document (RFC 9457), with a stable code and the id of the request."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from sluice.db.session import is_outage
from sluice.errors import (
    Conflict,
    Invalid,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    SluiceError,
    TemporarilyUnavailable,
    TooLarge,
    TooManyRequests,
    UnsupportedType,
)
from sluice.telemetry import current_request_id, logger

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF: Final[dict[type[SluiceError], HTTPStatus]] = {
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotAuthenticated: HTTPStatus.UNAUTHORIZED,
    NotAllowed: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    TemporarilyUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

log = logger()


class ProblemError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer to the member, or the name of the parameter")
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str = Field(examples=["/docs/problems#document_not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no document 0199d0e0-0000-7000-8000-000000000000."])
    instance: str = Field(examples=["/api/documents/0199d0e0-0000-7000-8000-000000000000"])
    code: str = Field(description="Stable; docs/api.md lists them all", examples=["document_not_found"])
    request_id: str | None = Field(description="The id under which the logs know this request")
    errors: list[ProblemError] = []


def problem_of(error: SluiceError, instance: str) -> dict[str, Any]:
    """The problem document that says what this error means over HTTP."""
    status = next(
        (STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), HTTPStatus.INTERNAL_SERVER_ERROR
    )
    return _document(status, error.code, error.detail, instance, **error.facts)


def add_handlers(app: FastAPI) -> None:
    """Have the application answer every error with a problem document."""

    @app.exception_handler(SluiceError)
    def on_known_error(request: Request, error: SluiceError) -> JSONResponse:
        body = problem_of(error, request.url.path)
        headers = {}
        if isinstance(error, TemporarilyUnavailable | TooManyRequests):
            body["retry_after"] = math.ceil(error.retry_after)
            headers["Retry-After"] = str(math.ceil(error.retry_after))
        if isinstance(error, NotAuthenticated):
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(body, body["status"], headers, MEDIA_TYPE)

    @app.exception_handler(RequestValidationError)
    def on_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = error.errors()
        malformed = any(found["type"] == "json_invalid" for found in wrong)
        status = HTTPStatus.BAD_REQUEST if malformed else HTTPStatus.UNPROCESSABLE_ENTITY
        details = [
            ProblemError(pointer=_pointer(found["loc"]), code=found["type"], message=found["msg"]).model_dump()
            for found in wrong
        ]
        sentence = "; ".join(f"{detail['pointer']}: {detail['message']}" for detail in details)
        code = "malformed" if malformed else "invalid"
        return JSONResponse(
            _document(status, code, sentence, request.url.path, errors=details), status, media_type=MEDIA_TYPE
        )

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, SluiceError):
            # FastAPI makes a 400 of whatever is raised while it reads a body.
            return on_known_error(request, error.__cause__)
        status = HTTPStatus(error.status_code)
        code = {404: "not_found", 405: "method_not_allowed", 400: "malformed"}.get(status, status.name.lower())
        detail = (
            error.detail if error.detail != status.phrase else f"{request.method} {request.url.path}: {status.phrase}."
        )
        return JSONResponse(
            _document(status, code, detail, request.url.path), status, dict(error.headers or {}), MEDIA_TYPE
        )

    @app.exception_handler(SQLAlchemyError)
    def on_database_error(request: Request, error: SQLAlchemyError) -> JSONResponse:
        if not is_outage(error):
            raise error
        away = TemporarilyUnavailable("PostgreSQL does not answer.", code="database_unavailable")
        return on_known_error(request, away)


def unforeseen(path: str) -> JSONResponse:
    """The answer to a request that failed in a way that nobody foresaw."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "Something went wrong that nobody foresaw. The log has it under this request's id."
    return JSONResponse(_document(status, "internal_error", detail, path), status, media_type=MEDIA_TYPE)


def _document(status: HTTPStatus, code: str, detail: str, instance: str, **facts: Any) -> dict[str, Any]:
    return {
        "type": f"/docs/problems#{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "instance": instance,
        "code": code,
        "request_id": current_request_id(),
        "errors": [],
        **facts,
    }


def _pointer(location: tuple[int | str, ...]) -> str:
    where, *rest = location
    return "/" + "/".join(map(str, rest)) if where == "body" else ".".join(map(str, rest or [where]))
