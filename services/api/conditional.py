"""Conditional requests (RFC 9110, 13): a client that polls is told "not modified" without the body."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel


def respond(request: Request, resource: BaseModel) -> Response:
    """The resource with a strong ETag, or 304 when the client has it already."""
    body = resource.model_dump(mode="json")
    etag = f'"{hashlib.sha256(resource.model_dump_json().encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    offered = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in offered:
        return Response(status_code=304, headers=headers)
    return JSONResponse(body, headers=headers)
