"""`Idempotency-Key`: a creating request that is sent again gets the answer of the first time, and creates nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response
from httpx import codes
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.auth import CallerDep
from services.api.dependencies import Resources, ResourcesDep
from services.api.received import ReceivedFile, received_file
from sluice.db.session import tenant_session
from sluice.identity import idempotency
from sluice.identity.idempotency import Answer, Ticket
from sluice.identity.tokens import Caller
from sluice.telemetry import logger

log = logger()
_TICKET: Final = "sluice.idempotency_ticket"
_KEPT_HEADERS: Final = ("content-type", "location")

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A name of your own for this request. Sent again under it within a day, it is answered as the "
        "first time, with `Idempotent-Replayed: true`, and nothing is created again",
    ),
]


class Answered(Exception):
    """The request was answered before."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def replay(_: Request, answered: Exception) -> Response:
    """The answer of the first time; handles `Answered`."""
    assert isinstance(answered, Answered)  # noqa: S101 - Starlette's types know no handler of one exception
    answer = answered.answer
    return Response(answer.body, answer.status, {**answer.headers, "Idempotent-Replayed": "true"})


async def _once(request: Request, who: CallerDep, it: ResourcesDep, key: KeyHeader = None) -> None:
    if key is not None:
        await _begin(request, who, it, key, [_canonical(await request.body())])


async def _uploaded_once(
    request: Request,
    who: CallerDep,
    it: ResourcesDep,
    file: Annotated[ReceivedFile, Depends(received_file)],
    key: KeyHeader = None,
) -> None:
    # Of what the form says: its bytes differ from one sending to the next, in the boundaries of their parts.
    said = [file.source_id, file.name, file.content_hash, file.external_id, *file.tags]
    if key is not None:
        await _begin(request, who, it, key, [json.dumps(said, default=str).encode()])


# For routes that create something, in their `dependencies`.
ONCE: Final = Depends(_once)
UPLOADED_ONCE: Final = Depends(_uploaded_once)


class KeepsAnswers:
    """Writes the answer to a named request down before it is sent; lets go of one that was refused or failed."""

    def __init__(self, app: ASGIApp, resources: Resources) -> None:
        self._app = app
        self._it = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        held: list[Message] = []

        async def hold_back(message: Message) -> None:
            if _TICKET not in scope:
                await send(message)
                return
            held.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                await asyncio.to_thread(self._settle, scope.pop(_TICKET), _success(held))
                for each in held:
                    await send(each)

        try:
            await self._app(scope, receive, hold_back)
        finally:
            if _TICKET in scope:
                await asyncio.to_thread(self._settle, scope.pop(_TICKET), None)

    def _settle(self, ticket: Ticket, answer: Answer | None) -> None:
        try:
            with tenant_session(self._it.sessions, ticket.tenant_id) as session:
                if answer is None:
                    idempotency.release(session, ticket)
                else:
                    idempotency.keep(session, ticket, answer)
        except SQLAlchemyError as error:
            # What was done is done, and its sender shall hear of it; the ticket runs out by itself.
            log.warning("idempotency_key.not_settled", error=type(error).__name__)


def _success(messages: Sequence[Message]) -> Answer | None:
    """The answer that these messages are, if it tells of a success."""
    start, *bodies = messages
    if not codes.is_success(start["status"]):
        return None
    headers = Headers(raw=start["headers"])
    kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
    return Answer(start["status"], b"".join(each.get("body", b"") for each in bodies).decode(), kept)


async def _begin(request: Request, who: Caller, it: Resources, key: str, said: Sequence[bytes]) -> None:
    asked = (request.method.encode(), request.url.path.encode(), *said)
    fingerprint = hashlib.sha256(b"\0".join(asked)).digest()
    begun = await asyncio.to_thread(_ask, it, who, key, fingerprint)
    if isinstance(begun, Answer):
        raise Answered(begun)
    request.scope[_TICKET] = begun


def _ask(it: Resources, who: Caller, key: str, fingerprint: bytes) -> Ticket | Answer:
    with tenant_session(it.sessions, who.tenant_id) as session:
        return idempotency.begin(
            session, tenant_id=who.tenant_id, user_id=who.user_id, key=key, fingerprint=fingerprint
        )


def _canonical(body: bytes) -> bytes:
    """The same for bodies that say the same."""
    try:
        said: Any = json.loads(body)
    except ValueError:
        return body
    return json.dumps(said, sort_keys=True).encode()
