"""The file of a multipart upload: spooled to disk, hashed, measured and sniffed before anything is promised."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, Any, Final
from uuid import UUID

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from services.api.auth import CallerDep
from services.api.dependencies import ResourcesDep
from services.api.middleware import too_large
from services.api.text import storable
from sluice.documents.media_types import safe_name, sniff
from sluice.errors import Invalid

_PIECE: Final = 1024 * 1024
_MOST_TAGS: Final = 32
_LONGEST_TAG: Final = 100
_LONGEST_EXTERNAL_ID: Final = 512

# The route reads the form by hand, after the caller was checked; so its shape is written down by hand too.
UPLOAD_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "source_id"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "source_id": {"type": "string", "format": "uuid"},
                        "external_id": {
                            "type": "string",
                            "maxLength": _LONGEST_EXTERNAL_ID,
                            "description": "What makes a later upload a new version of this document; else its name",
                        },
                        "tags": {"type": "array", "items": {"type": "string", "maxLength": _LONGEST_TAG}},
                    },
                }
            }
        },
    }
}


@dataclass(frozen=True)
class ReceivedFile:
    """An upload, whole and looked at."""

    body: IO[bytes]
    name: str
    size: int
    content_hash: str
    mime: str
    source_id: UUID
    external_id: str | None
    tags: tuple[str, ...]


async def received_file(request: Request, _: CallerDep, it: ResourcesDep) -> AsyncIterator[ReceivedFile]:
    """The one file of the request. Asking for the caller first keeps strangers from filling the disk."""
    async with request.form(max_files=1, max_fields=_MOST_TAGS + 4) as form:
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise Invalid("Send the file as the form field `file` (multipart/form-data).", code="file_missing")
        yield await asyncio.to_thread(_look_at, upload, form, it.ingest.max_upload_bytes)


def _look_at(upload: UploadFile, form: FormData, limit: int) -> ReceivedFile:
    body = upload.file
    size, content_hash = measure(body)
    if size > limit:
        raise too_large(limit, size)
    check_not_empty(size)
    name = safe_name(upload.filename or "")
    return ReceivedFile(
        body=body,
        name=name,
        size=size,
        content_hash=content_hash,
        mime=sniff(body, name),
        source_id=_source_id(form),
        external_id=_external_id(form),
        tags=checked_tags([str(tag) for tag in form.getlist("tags") if str(tag).strip()]),
    )


def measure(body: IO[bytes]) -> tuple[int, str]:
    """Size and SHA-256 of all that the body holds; the body is then at its beginning again."""
    digest = hashlib.sha256()
    size = 0
    body.seek(0)
    while piece := body.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    body.seek(0)
    return size, digest.hexdigest()


def check_not_empty(size: int) -> None:
    """Refuse a file without a byte."""
    if size == 0:
        raise Invalid("The file is empty: it has 0 bytes.", code="empty_file")


def checked_tags(tags: list[str]) -> tuple[str, ...]:
    """The tags, each once, trimmed; `Invalid` when there are too many or one is too long."""
    trimmed = tuple(dict.fromkeys(_storable(tag.strip(), "invalid_tags") for tag in tags))
    if len(trimmed) > _MOST_TAGS or any(len(tag) > _LONGEST_TAG for tag in trimmed):
        raise Invalid(f"At most {_MOST_TAGS} tags of at most {_LONGEST_TAG} characters.", code="invalid_tags")
    return trimmed


def _storable(text: str, code: str) -> str:
    try:
        return storable(text)
    except ValueError as error:
        raise Invalid(f"{text!r} {error}.", code=code) from None


def _source_id(form: FormData) -> UUID:
    try:
        return UUID(str(form.get("source_id")))
    except ValueError:
        raise Invalid("Send the id of a source as the form field `source_id`.", code="source_missing") from None


def _external_id(form: FormData) -> str | None:
    given = _storable(str(form.get("external_id") or "").strip(), "invalid_external_id")
    if len(given) > _LONGEST_EXTERNAL_ID:
        raise Invalid(f"`external_id` has more than {_LONGEST_EXTERNAL_ID} characters.", code="invalid_external_id")
    return given or None
