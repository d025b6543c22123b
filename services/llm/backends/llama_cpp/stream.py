"""What the owner thread has written of one answer, on its way to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from services.llm.backends.base import Facts, Piece

# Between two sends of a client that keeps up there are one or two.
UNREAD_LIMIT: Final = 64

Item = Piece | Facts | BaseException | None


class Stream:
    """A bounded queue with one end in either thread.

    It is bounded by its writer, who asks `full` before the next token: the answer of a slow reader pauses, and nobody
    else's does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Each is written by one thread and read by both.
        self._put = 0
        self._taken = 0
        self._items: asyncio.Queue[Item] = asyncio.Queue()

    @property
    def full(self) -> bool:
        """Whether the reader must catch up first."""
        return self._put - self._taken >= UNREAD_LIMIT

    @property
    def reopened(self) -> bool:
        """Whether the writer may go on since the last `take`, and not before it."""
        return self._put - self._taken == UNREAD_LIMIT - 1

    def will_put(self, count: int) -> None:
        """Count what is on its way (owner thread)."""
        self._put += count

    def put(self, items: Iterable[Item]) -> None:
        """Hand over (event loop). None is the end, an exception a bad end."""
        for item in items:
            self._items.put_nowait(item)

    async def take(self) -> Piece | Facts | None:
        """What comes next, or None at the end (event loop)."""
        item = await self._items.get()
        self._taken += 1
        if isinstance(item, BaseException):
            raise item
        return item
