"""Server-sent events over HTTP: named, numbered, kept alive, and passed on at once by proxies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from prometheus_client import Gauge
from sse_starlette import EventSourceResponse, ServerSentEvent

from sluice.wire.events import Event

streams_active = Gauge("sluice_sse_streams_active", "Event streams being written")
# Every proxy on the way is asked not to hold events back, nginx by a name of its own.
_HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


def event_stream(events: AsyncGenerator[Event, None], heartbeat_seconds: float) -> EventSourceResponse:
    """The events as `text/event-stream`, numbered from 1, with a comment whenever it was quiet for so long."""

    async def numbered() -> AsyncGenerator[tuple[int, Event], None]:
        number = 0
        async with aclosing(events):
            async for event in events:
                number += 1
                yield number, event

    return numbered_stream(numbered(), heartbeat_seconds)


def numbered_stream(events: AsyncGenerator[tuple[int, Event], None], heartbeat_seconds: float) -> EventSourceResponse:
    """Like `event_stream`, for events that bring their own numbers."""
    return EventSourceResponse(_sent(events), ping=max(int(heartbeat_seconds), 1), headers=_HEADERS, sep="\n")


async def _sent(events: AsyncGenerator[tuple[int, Event], None]) -> AsyncGenerator[ServerSentEvent, None]:
    # Closed at once when the client goes, not when the garbage collector comes: closing is what stops the model.
    with streams_active.track_inprogress():
        async with aclosing(events):
            async for number, event in events:
                yield ServerSentEvent(event.model_dump_json(), event=event.name, id=str(number))
