"""Lanes: which queue takes which work, by the queues' names alone; `sluice.broker` makes them."""

from __future__ import annotations

from typing import Final

from sluice.settings import JobSettings

URGENT: Final = "sluice.v1.urgent"
INGEST: Final = "sluice.v1.ingest"
MAINTENANCE: Final = "sluice.v1.maintenance"


def lane_of(size: int, settings: JobSettings) -> str:
    """The queue of a document of this many bytes that a person waits for."""
    return URGENT if size <= settings.urgent_bytes else INGEST
