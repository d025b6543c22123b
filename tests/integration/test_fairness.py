"""Tenants take turns: a backlog of one does not keep another one's single document waiting."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from sluice.identity.roles import Role
from sluice.jobs import claims, dispatch
from tests.e2e.running import Join, Stores
from tests.integration.job_bench import SETTINGS, Bench

pytestmark = pytest.mark.usefixtures("no_dispatcher")


def test_a_place_that_becomes_free_goes_to_the_tenant_that_has_none(bench: Bench, stores: Stores, join: Join) -> None:
    backlog = [bench.submit() for _ in range(2 * SETTINGS.in_flight)]
    published = publish(bench)
    assert len(published) == SETTINGS.in_flight
    other = Bench(stores, join(f"Other {uuid4().hex}", Role.ADMIN).tenant_id, bench.queue)
    single = other.submit()

    claim = bench.claimed(backlog[0])
    with bench.session() as session:
        claims.finish(session, claim)

    assert publish(bench) == [single]


def publish(bench: Bench) -> list[UUID]:
    """The steps whose messages go out now."""
    with bench.as_dispatcher() as session:
        messages = dispatch.due_messages(session, bench.queue, SETTINGS)
        steps = [message.step_id for message in messages]
        if messages:
            dispatch.mark_published(session, messages)
    return steps
