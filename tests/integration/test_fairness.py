"""Tenants take turns: a backlog of one does not keep another one's single document waiting."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, text, update

from sluice.identity.roles import Role
from sluice.jobs import claims, dispatch
from sluice.jobs.models import OutboxMessage
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


def test_a_queue_takes_more_when_workers_can_do_more_at_once(bench: Bench) -> None:
    for _ in range(4 * SETTINGS.in_flight):
        bench.submit()

    with bench.as_dispatcher() as session:
        assert len(dispatch.due_messages(session, bench.queue, SETTINGS, slots=3)) == 3 * SETTINGS.in_flight


def test_a_job_knows_how_many_are_before_it(bench: Bench, stores: Stores, join: Join) -> None:
    backlog = [bench.submit() for _ in range(2 * SETTINGS.in_flight)]
    with_broker = len(publish(bench))
    other = Bench(stores, join(f"Other {uuid4().hex}", Role.ADMIN).tenant_id, bench.queue)
    single = other.submit()

    assert place(bench, backlog[0]) == 1
    assert place(other, single) == with_broker + 1
    assert place(bench, backlog[-1]) == len(backlog) + 1
    bench.claimed(backlog[0])
    assert place(bench, backlog[0]) is None
    assert place(other, single) == with_broker


def test_starvation_is_the_longest_time_that_a_tenant_was_not_served(bench: Bench) -> None:
    waiting = bench.submit()
    with bench.session() as session:
        hour_ago = func.now() - text("interval '1 hour'")
        session.execute(update(OutboxMessage).where(OutboxMessage.step_id == waiting).values(available_at=hour_ago))

    with bench.as_dispatcher() as session:
        before = dispatch.starvation_seconds(session)
    publish(bench)
    bench.submit()
    with bench.as_dispatcher() as session:
        after = dispatch.starvation_seconds(session)

    assert before >= 3600
    assert after < 3600


def place(bench: Bench, step_id: UUID) -> int | None:
    with bench.as_dispatcher() as session:
        return dispatch.place_in_line(session, bench.job_of(step_id).id)


def publish(bench: Bench) -> list[UUID]:
    """The steps whose messages go out now."""
    with bench.as_dispatcher() as session:
        messages = dispatch.due_messages(session, bench.queue, SETTINGS)
        steps = [message.step_id for message in messages]
        if messages:
            dispatch.mark_published(session, messages)
    return steps
