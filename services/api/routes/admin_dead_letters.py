"""`/api/admin/dead-letters`: work that was given up, and what a person does about it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from services.api.all_tenants import LettersOfNobody
from services.api.auth import CallerDep
from services.api.conditional import respond
from services.api.dependencies import ResourcesDep
from services.api.idempotency import ONCE
from services.api.paging import Page, decode, page_of
from services.api.routes.bulk import BulkOutcome, Confirm
from services.api.sessions import SessionDep
from sluice.documents import replay as replays
from sluice.documents.reading import ReadingOptions
from sluice.identity import audit
from sluice.jobs import dead_letters
from sluice.jobs.dead_letters import Group, LetterFilter
from sluice.jobs.models import DeadLetter

router = APIRouter(prefix="/api/admin/dead-letters", tags=["Administration"])

_MOST_GROUPS: Final = 100
_UNATTRIBUTED: Final = "Those that belong to no tenant; needs the role `admin`"


def of_nobody(
    who: CallerDep, it: ResourcesDep, *, unattributed: Annotated[bool, Query(description=_UNATTRIBUTED)] = False
) -> LettersOfNobody | None:
    """The letters of no tenant, if they were asked for."""
    return LettersOfNobody(it, who) if unattributed else None


OfNobodyDep = Annotated[LettersOfNobody | None, Depends(of_nobody)]


class DeadLetterView(BaseModel):
    """Work that was given up, or a message that nobody could read."""

    id: UUID
    origin: Literal["job", "broker"]
    reason: str = Field(description="The error's code, or why RabbitMQ gave the message up")
    signature: str = Field(description="The same for failures of one kind")
    queue: str | None
    job_id: UUID | None
    step_id: UUID | None
    document_id: UUID | None
    step: str | None
    part: int | None
    attempts: int
    error_class: str | None
    error_message: str | None
    position: dict[str, Any] = Field(description="How far the work had come: `stage`, `done`, `total`, `page`")
    created_at: datetime
    resolved_at: datetime | None
    resolution: Literal["replayed", "retried", "discarded"] | None
    resolved_by: UUID | None
    replay_job_id: UUID | None
    allowed_actions: list[Literal["replay", "discard"]]

    @classmethod
    def of(cls, letter: DeadLetter) -> Self:
        """What is shown of a letter."""
        shown = {name: getattr(letter, name, None) for name in cls.model_fields if name != "allowed_actions"}
        return cls.model_validate({**shown, "allowed_actions": _allowed(letter)})


class DeadLetterDetail(DeadLetterView):
    """A dead letter and the message itself, when it was the broker that gave it up."""

    headers: dict[str, Any]
    body: str | None


class GroupView(BaseModel):
    """Open letters of one kind."""

    signature: str
    reason: str
    step: str | None
    error_class: str | None
    error_message: str | None = Field(description="Of one of them")
    open: int
    first_at: datetime
    last_at: datetime

    @classmethod
    def of(cls, group: Group) -> Self:
        """What is shown of a group."""
        return cls.model_validate(group, from_attributes=True)


class Groups(BaseModel):
    """The kinds of failures with the most open letters."""

    data: list[GroupView]
    has_more: bool


class LetterListQuery(LetterFilter):
    """Which letters to list, and how many."""

    resolved: bool | None = Field(None, description="Only those dealt with, or only the open ones")
    unattributed: bool = Field(False, description=_UNATTRIBUTED)
    limit: int = Field(50, ge=1, le=100, description="Items on a page")
    cursor: str | None = Field(None, description="`next_cursor` of the page before")


class Replay(BaseModel):
    """How to do the work again."""

    options: ReadingOptions | None = Field(None, description="Read the document anew like this; default: try again")

    @property
    def given(self) -> dict[str, Any] | None:
        """The options that were named."""
        return self.options.as_stored() if self.options else None


class LetterSelection(BaseModel):
    """Open letters to deal with, and how many they are."""

    filter: LetterFilter = LetterFilter()
    confirm: Confirm = None


class ReplaySelection(Replay, LetterSelection):
    """Open letters to replay, how many they are, and how."""


@router.get("", operation_id="listDeadLetters", summary="List dead letters")
def list_letters(
    session: SessionDep, who: CallerDep, it: ResourcesDep, query: Annotated[LetterListQuery, Query()]
) -> Page[DeadLetterView]:
    """Dead letters, newest first."""
    wanted = LetterFilter.model_validate(query.model_dump(include=set(LetterFilter.model_fields)))
    position = decode(query.cursor)
    before = position[1] if position else None
    nobodys = of_nobody(who, it, unattributed=query.unattributed)
    most = query.limit + 1
    rows = (
        nobodys.page(wanted, resolved=query.resolved, before=before, limit=most)
        if nobodys
        else dead_letters.page(session, wanted, resolved=query.resolved, before=before, limit=most)
    )
    return page_of(rows, query.limit, lambda letter: (letter.created_at, letter.id), DeadLetterView.of)


@router.get("/groups", operation_id="listDeadLetterGroups", summary="Group the open dead letters")
def list_groups(session: SessionDep, nobodys: OfNobodyDep) -> Groups:
    """The open letters by kind of failure, the most frequent first: at most 100 kinds."""
    most = _MOST_GROUPS + 1
    found = nobodys.groups(most) if nobodys else dead_letters.groups(session, limit=most)
    return Groups(data=[GroupView.of(group) for group in found[:_MOST_GROUPS]], has_more=len(found) == most)


@router.get("/{letter_id}", operation_id="getDeadLetter", summary="Show a dead letter", response_model=DeadLetterDetail)
def get(letter_id: UUID, session: SessionDep, nobodys: OfNobodyDep, request: Request) -> Response:
    """One dead letter, with the message of the broker."""
    letter = nobodys.get(letter_id) if nobodys else dead_letters.get(session, letter_id)
    return respond(request, DeadLetterDetail.of(letter))


@router.post(
    "/{letter_id}:replay", operation_id="replayDeadLetter", summary="Replay a dead letter", dependencies=[ONCE]
)
def replay(
    letter_id: UUID, session: SessionDep, who: CallerDep, it: ResourcesDep, how: Replay | None = None
) -> DeadLetterView:
    """Do the work again, as it was or with other options; `replay_job_id` is the job to watch. Again is fine."""
    options = how.given if how else None
    letter = replays.replay(session, letter_id, options=options, settings=it.jobs, by=who.user_id)
    return DeadLetterView.of(letter)


@router.post("/{letter_id}:discard", operation_id="discardDeadLetter", summary="Discard a dead letter")
def discard(letter_id: UUID, session: SessionDep, who: CallerDep, nobodys: OfNobodyDep) -> DeadLetterView:
    """Say that nothing will be done about it. Again is fine; 409 when it was replayed."""
    by = who.user_id
    # One of nobody's is closed in a transaction of its own: the role that sees it may not write the audit log.
    letter = nobodys.discard(letter_id) if nobodys else dead_letters.discard(session, letter_id, by=by)
    audit.record(session, "dead_letter.discard", "dead_letter", letter_id, by=by)
    return DeadLetterView.of(letter)


@router.post(":replay", operation_id="replayDeadLetters", summary="Replay many dead letters", dependencies=[ONCE])
def replay_many(chosen: ReplaySelection, who: CallerDep, it: ResourcesDep) -> BulkOutcome:
    """Replay every open letter that the filter fits, once their number is confirmed."""
    outcome = replays.replay_all(
        it.sessions,
        who.tenant_id,
        chosen.filter,
        options=chosen.given,
        confirm=chosen.confirm,
        settings=it.jobs,
        by=who.user_id,
    )
    return BulkOutcome.of(outcome)


@router.post(":discard", operation_id="discardDeadLetters", summary="Discard many dead letters")
def discard_many(chosen: LetterSelection, who: CallerDep, it: ResourcesDep) -> BulkOutcome:
    """Discard every open letter that the filter fits, once their number is confirmed."""
    outcome = replays.discard_all(it.sessions, who.tenant_id, chosen.filter, confirm=chosen.confirm, by=who.user_id)
    return BulkOutcome.of(outcome)


def _allowed(letter: DeadLetter) -> list[str]:
    if letter.resolved_at is not None:
        return []
    return ["replay", "discard"] if letter.job_id else ["discard"]
