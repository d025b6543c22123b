"""Conditional requests (RFC 9110, 13): a client that polls is told "not modified" without the body."""

from __future__ import annotations

import hashlib

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel


def respond(request: Request, resource: BaseModel, volatile: set[str] | None = None) -> Response:
    """The resource with an ETag, or 304 when the client has it already.

    `volatile` members change by themselves and make no new version of the resource; the tag is then a weak one.
    """
    body = resource.model_dump(mode="json")
    digest = hashlib.sha256(resource.model_dump_json(exclude=volatile).encode()).hexdigest()[:32]
    etag = f'"{digest}"'
    headers = {"ETag": f"W/{etag}" if volatile else etag, "Cache-Control": "private, no-cache"}
    offered = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in offered:
        return Response(status_code=304, headers=headers)
    return JSONResponse(body, headers=headers)
