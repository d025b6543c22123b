"""Leaving the platform as it was found, or saying what is left on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from services.cli.client import Refused
from services.cli.exit_codes import CommandError, Exit
from services.cli.smoke.visit import Visit

_PATIENCE: Final = 30.0
# The server goes on with a request whose client has gone.
_SETTLING: Final = 3.0
_LOOK_SECONDS: Final = 2.0
_PASSING: Final = (Exit.UNREACHABLE, Exit.TIMED_OUT, Exit.SERVER_ERROR, Exit.TOO_MANY_REQUESTS)


@dataclass(frozen=True)
class Left:
    """Something of ours that stays on the platform."""

    what: str
    id: str
    why: str
    # Whether the platform could have removed it; else it has no way to.
    failed: bool


def clean_up(visit: Visit) -> list[Left]:
    """Remove all that the visit made; what stays, and why."""
    if not visit.signed_in:
        return []
    if visit.unanswered:
        time.sleep(_SETTLING)
    deadline = time.monotonic() + _PATIENCE
    try:
        source_id = visit.source_id or _source_made(visit)
        if source_id is None:
            return []
        left = [each for document in _documents(visit, source_id) for each in _erased(visit, document, deadline)]
        left += _source_removed(visit, source_id, emptied=not left)
    except CommandError as error:
        return [Left("source", visit.source_name, str(error), failed=True)]
    if visit.conversation_id:
        left.append(Left("conversation", visit.conversation_id, "the API cannot delete conversations", failed=False))
    return left


def _source_made(visit: Visit) -> str | None:
    """The id of our source, when it was made but its answer never reached us."""
    names = {source["name"]: str(source["id"]) for source in visit.client.pages("/api/sources")}
    return names.get(visit.source_name)


def _documents(visit: Visit, source_id: str) -> list[str]:
    """Also those whose upload was never answered, and those that are half erased and no longer listed."""
    listed = [str(document["id"]) for document in visit.client.pages("/api/documents", source_id=source_id)]
    return list(dict.fromkeys([*listed, *(upload.document_id for upload in visit.uploads)]))


def _erased(visit: Visit, document_id: str, deadline: float) -> Iterator[Left]:
    while True:
        try:
            visit.client.call("DELETE", f"/api/documents/{document_id}")
        except CommandError as error:
            if error.status is Exit.NOT_FOUND:
                return
            if error.status not in _PASSING or time.monotonic() >= deadline:
                yield Left("document", document_id, str(error), failed=True)
                return
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _source_removed(visit: Visit, source_id: str, *, emptied: bool) -> Iterator[Left]:
    name = f"source {visit.source_name}"
    if not emptied:
        yield Left(name, source_id, "not all of its documents could be erased", failed=True)
        return
    try:
        visit.client.call("DELETE", f"/api/sources/{source_id}")
    except Refused as refused:
        if refused.http_status == HTTPStatus.METHOD_NOT_ALLOWED:
            yield Left(name, source_id, "it is empty; the API cannot delete sources", failed=False)
        elif refused.http_status != HTTPStatus.NOT_FOUND:
            yield Left(name, source_id, str(refused), failed=True)
