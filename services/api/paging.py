"""Lists in pages: `limit`, an opaque `cursor`, and `{data, has_more, next_cursor}`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel

from sluice.errors import Invalid

T = TypeVar("T")
R = TypeVar("R")
Position = tuple[datetime, UUID]

LimitParam = Annotated[int, Query(ge=1, le=100, description="Items on a page")]
CursorParam = Annotated[str | None, Query(description="`next_cursor` of the page before")]


class Page(BaseModel, Generic[T]):
    """Some items of a list, and how to get more."""

    data: list[T]
    has_more: bool
    next_cursor: str | None


def page_of(rows: Sequence[R], limit: int, position: Callable[[R], Position], show: Callable[[R], T]) -> Page[T]:
    """A page from up to `limit` + 1 rows: one more than it shows says that there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(
        data=[show(row) for row in shown], has_more=more, next_cursor=_encode(position(shown[-1])) if more else None
    )


def decode(cursor: str | None) -> Position | None:
    """The position that a cursor stands for; `Invalid` when it is not one of ours."""
    if cursor is None:
        return None
    try:
        moment, _, identifier = base64.urlsafe_b64decode(cursor.encode()).decode().partition("|")
        return datetime.fromisoformat(moment), UUID(identifier)
    except (ValueError, binascii.Error):
        raise Invalid("The cursor is not one that this API gave out.", code="invalid_cursor") from None


def _encode(position: Position) -> str:
    moment, identifier = position
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{identifier}".encode()).decode()
