"""Lanes: which queue takes which work."""

from __future__ import annotations

import pytest

from sluice import broker
from sluice.jobs import lanes
from sluice.settings import JobSettings


def test_lanes_have_the_names_of_queues_that_the_broker_makes() -> None:
    assert (lanes.URGENT, lanes.INGEST, lanes.MAINTENANCE) == (broker.URGENT, broker.INGEST, broker.MAINTENANCE)
    assert {lanes.URGENT, lanes.INGEST, lanes.MAINTENANCE} <= set(broker.QUEUES)


@pytest.mark.parametrize(
    ("size", "lane"), [(0, lanes.URGENT), (1000, lanes.URGENT), (1001, lanes.INGEST), (10**9, lanes.INGEST)]
)
def test_a_small_document_is_urgent(size: int, lane: str) -> None:
    assert lanes.lane_of(size, JobSettings(urgent_bytes=1000)) == lane
