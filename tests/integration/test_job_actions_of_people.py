"""What people do to a job: they cancel it, and have it tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from sluice.errors import Conflict, SluiceError, TemporarilyUnavailable
from sluice.jobs import actions, claims, dispatch
from sluice.jobs.estimate import eta_seconds
from sluice.jobs.models import Job
from sluice.jobs.state import Action, JobState
from tests.integration.job_bench import SETTINGS, Bench, fanned_out

pytestmark = pytest.mark.usefixtures("no_dispatcher")

BOOM: Final = SluiceError("The parser tripped.", code="boom")
AWAY: Final = TemporarilyUnavailable("EMB does not answer.", code="embedder_unavailable")


def test_a_queued_job_is_canceled_at_once_and_cannot_be_claimed(bench: Bench) -> None:
    step_id = bench.submit()

    with bench.session() as session:
        job = actions.cancel(session, bench.read(step_id).job_id)
        assert job.state is JobState.CANCELED

    assert bench.claim(step_id) is None
    assert bench.read(step_id).state is JobState.CANCELED


def test_a_running_job_is_canceled_when_its_worker_next_looks(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)
    with bench.session() as session:
        assert actions.cancel(session, claim.job_id).state is JobState.RUNNING

    with bench.session() as session:
        assert claims.heartbeat(session, claim, SETTINGS) is True
        claims.stop_canceled(session, claim)

    assert bench.job_of(step_id).state is JobState.CANCELED
    assert bench.attempts(step_id) == [(1, "first", "canceled")]


@pytest.mark.parametrize(
    "act", [actions.cancel, lambda session, job_id: actions.retry(session, job_id, SETTINGS)], ids=list(Action)
)
def test_a_job_that_is_ready_accepts_no_action(bench: Bench, act: Callable[[Session, UUID], Job]) -> None:
    claim = bench.claimed(bench.submit())
    with bench.session() as session:
        claims.finish(session, claim)

    with pytest.raises(Conflict) as refused, bench.session() as session:
        act(session, claim.job_id)

    assert (refused.value.code, refused.value.facts["allowed_actions"]) == ("action_not_allowed", [])


def test_a_failed_job_is_tried_again_from_its_checkpoint_and_its_attempts_go_on_counting(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)
    with bench.session() as session:
        claims.checkpoint(session, claim, extracted={"blocks": 7})
        claims.fail(session, claim, BOOM)

    with bench.session() as session:
        actions.retry(session, claim.job_id, SETTINGS)
    again = bench.claimed(step_id, "second")

    assert (again.attempt, again.checkpoint) == (2, {"extracted": {"blocks": 7}})
    assert bench.read(step_id).max_attempts == 1 + SETTINGS.max_attempts
    assert len(bench.messages(step_id)) == 2


def test_the_time_between_a_failure_and_a_retry_is_none_that_the_rest_is_estimated_by(bench: Bench) -> None:
    part, _ = fanned_out(bench, 2, total=20)
    claim = bench.claimed(part)
    with bench.session() as session:
        claims.count_done(session, claim, 5)
    now = datetime.now(UTC)
    assert eta_seconds(bench.job_of(part), now) is not None
    with bench.session() as session:
        claims.fail(session, claim, BOOM)
        actions.retry(session, claim.job_id, SETTINGS)
    bench.claimed(part, "second")

    assert bench.job_of(part).done == 5
    assert eta_seconds(bench.job_of(part), now) is None


def test_a_canceled_step_takes_its_unpublished_message_with_it(bench: Bench) -> None:
    step_id = bench.submit()

    with bench.session() as session:
        actions.cancel(session, bench.job_of(step_id).id)

    assert bench.messages(step_id) == []


def test_a_cancellation_does_not_wait_for_a_dispatcher_that_waits_for_the_broker(bench: Bench) -> None:
    step_id = bench.submit()
    with bench.as_dispatcher() as dispatcher:
        (message,) = dispatch.due_messages(dispatcher, bench.queue, SETTINGS)

        with bench.session() as session:
            session.execute(text("SET LOCAL lock_timeout = '1s'"))
            actions.cancel(session, bench.job_of(step_id).id)
        dispatch.mark_published(dispatcher, [message])

    # It is published; whoever gets it finds nothing to claim.
    assert [one.published_at is not None for one in bench.messages(step_id)] == [True]
    assert bench.claim(step_id) is None
    assert bench.read(step_id).state is JobState.CANCELED
