"""The dispatcher's side of jobs on real PostgreSQL: what is published when, in which order, and what is sent again."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import func, select, text, update

from sluice.errors import SluiceError
from sluice.identity.roles import Role
from sluice.jobs import actions, claims, dispatch, outbox, recovery, repository
from sluice.jobs.models import DeadLetter, Job, OutboxMessage
from sluice.jobs.state import JobState
from sluice.settings import JobSettings
from tests.e2e.running import Join, Stores
from tests.integration.job_bench import SETTINGS, Bench

pytestmark = pytest.mark.usefixtures("no_dispatcher")


def test_a_transaction_that_is_rolled_back_promises_nothing(bench: Bench) -> None:
    with bench.session() as session:
        repository.submit(session, Job(kind="test", state=JobState.QUEUED), bench.step())
        session.rollback()

    with bench.session() as session:
        assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 0
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_the_dispatcher_is_woken_by_the_commit_and_not_before(bench: Bench, variables: dict[str, str]) -> None:
    url = variables["SLUICE_DATABASE_SYSTEM_URL"].replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {outbox.CHANNEL}")
        with bench.session() as session:
            repository.submit(session, Job(kind="test", state=JobState.QUEUED), bench.step())
            session.flush()
            assert list(listener.notifies(timeout=0.3)) == []

        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


def test_the_sweeper_queues_the_step_of_a_silent_worker_again(bench: Bench) -> None:
    silent, alive = bench.submit(), bench.submit()
    bench.claimed(silent)
    bench.claimed(alive)
    bench.expire(silent)

    assert bench.sweep() >= 1

    assert (bench.read(silent).state, bench.read(alive).state) == (JobState.QUEUED, JobState.RUNNING)
    assert bench.attempts(silent) == [(1, "first", "lost")]
    assert [message.published_at for message in bench.messages(silent)] == [None, None]
    assert bench.claimed(silent, "second").attempt == 2


def test_a_step_that_kills_every_worker_fails_as_worker_lost(bench: Bench) -> None:
    step_id = bench.submit()
    for _ in range(SETTINGS.max_attempts):
        bench.claimed(step_id)
        bench.expire(step_id)
        bench.sweep()

    job = bench.job_of(step_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "worker_lost")
    assert "died 3 times" in (job.error_detail or "")
    assert bench.claim(step_id) is None


def test_a_canceled_job_whose_worker_died_ends_canceled(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)
    with bench.session() as session:
        actions.cancel(session, claim.job_id)
    bench.expire(step_id)

    bench.sweep()

    assert bench.job_of(step_id).state is JobState.CANCELED
    assert bench.claim(step_id) is None


def test_a_message_published_but_never_claimed_is_promised_again_once(bench: Bench) -> None:
    lost, fresh = bench.submit(), bench.submit()
    with bench.as_dispatcher() as session:
        dispatch.mark_published(session, dispatch.due_messages(session, bench.queue, SETTINGS))
    bench.set(lost, dispatched_at=func.now() - text("interval '10 minutes'"))

    overdue = []
    for _ in range(2):
        with bench.as_dispatcher() as session:
            overdue.append(recovery.overdue_queues(session, SETTINGS).get(bench.queue))
            recovery.requeue_undelivered(session, SETTINGS, [bench.queue])

    assert overdue == [2, None]
    assert [message.published_at is None for message in bench.messages(lost)] == [False, True]
    assert bench.messages(lost)[-1].available_at == bench.read(lost).run_after
    assert [message.published_at is None for message in bench.messages(fresh)] == [False]


def test_a_message_that_waits_in_its_queue_behind_long_steps_is_not_promised_again(bench: Bench) -> None:
    step_id = bench.submit()
    with bench.as_dispatcher() as session:
        dispatch.mark_published(session, dispatch.due_messages(session, bench.queue, SETTINGS))
    bench.set(step_id, dispatched_at=func.now() - text("interval '10 minutes'"))

    with bench.as_dispatcher() as session:
        recovery.requeue_undelivered(session, SETTINGS, [])

    assert len(bench.messages(step_id)) == 1


def test_one_dispatcher_at_a_time_sweeps(bench: Bench) -> None:
    with bench.as_dispatcher() as first:
        assert recovery.lead_sweeping(first)
        with bench.as_dispatcher() as second:
            assert not recovery.lead_sweeping(second)

    with bench.as_dispatcher() as third:
        assert recovery.lead_sweeping(third)


def test_a_tenant_with_many_documents_does_not_make_another_s_single_one_wait(
    bench: Bench, stores: Stores, join: Join
) -> None:
    busy = [bench.submit() for _ in range(20)]
    small = Bench(stores, join(f"Bench {uuid4().hex}", Role.ADMIN).tenant_id, bench.queue)
    single = small.submit()

    with bench.as_dispatcher() as session:
        chosen = [message.step_id for message in dispatch.due_messages(session, bench.queue, SETTINGS)]

    assert single in chosen
    assert len(chosen) == SETTINGS.in_flight
    assert sorted(set(chosen) - {single}) == busy[:3]


def test_a_queue_is_kept_shallow_and_filled_as_its_steps_end(bench: Bench) -> None:
    steps = [bench.submit() for _ in range(6)]

    def publish() -> list[UUID]:
        with bench.as_dispatcher() as session:
            messages = dispatch.due_messages(session, bench.queue, SETTINGS)
            dispatch.mark_published(session, messages)
            return [message.step_id for message in messages]

    assert publish() == steps[:4]
    assert publish() == []
    with bench.session() as session:
        session.info["claim"] = claims.claim(session, steps[0], worker="first", settings=SETTINGS)
        claims.finish(session, session.info["claim"])
    assert publish() == [steps[4]]


def test_two_dispatchers_never_take_the_same_message(bench: Bench) -> None:
    for _ in range(4):
        bench.submit()
    narrow = JobSettings(in_flight=2)

    with bench.as_dispatcher() as first, bench.as_dispatcher() as second:
        second.execute(text("SET LOCAL lock_timeout = '5s'"))
        taken = {message.id for message in dispatch.due_messages(first, bench.queue, narrow)}
        also = {message.id for message in dispatch.due_messages(second, bench.queue, SETTINGS)}

    assert len(taken) == len(also) == 2
    assert taken.isdisjoint(also)


def test_a_message_that_is_not_due_yet_is_not_published(bench: Bench) -> None:
    step_id = bench.submit()
    with bench.as_dispatcher() as session:
        dispatch.mark_published(session, dispatch.due_messages(session, bench.queue, SETTINGS))
    with bench.session() as session:
        owned = claims.claim(session, step_id, worker="first", settings=SETTINGS)
        assert owned is not None
        claims.retry_later(session, owned, SluiceError(code="boom"), SETTINGS, blameless=False)

    with bench.as_dispatcher() as session:
        assert dispatch.due_messages(session, bench.queue, SETTINGS) == []


def test_a_message_that_no_worker_can_read_counts_as_an_attempt_until_the_job_fails(bench: Bench) -> None:
    step_id = bench.submit()
    refused = SluiceError("No worker could read it.", code="message_refused")

    for attempt in range(1, SETTINGS.max_attempts + 1):
        with bench.as_dispatcher() as session:
            assert recovery.refuse_delivery(session, step_id, refused, SETTINGS)
        assert bench.read(step_id).attempt == attempt

    job = bench.job_of(step_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "message_refused")
    assert [outcome for _, _, outcome in bench.attempts(step_id)] == ["refused"] * SETTINGS.max_attempts
    with bench.as_dispatcher() as session:
        letters = session.scalars(select(DeadLetter).where(DeadLetter.job_id == job.id)).all()
        assert [(letter.reason, letter.attempts) for letter in letters] == [("message_refused", SETTINGS.max_attempts)]
        assert not recovery.refuse_delivery(session, step_id, refused, SETTINGS)


def test_a_message_that_was_refused_does_not_touch_a_step_that_runs(bench: Bench) -> None:
    step_id = bench.submit()
    bench.claimed(step_id)

    with bench.as_dispatcher() as session:
        assert not recovery.refuse_delivery(session, step_id, SluiceError(code="message_refused"), SETTINGS)

    assert bench.read(step_id).state is JobState.RUNNING


@pytest.mark.parametrize("attempts", [SETTINGS.max_attempts, 1])
def test_a_step_that_stops_for_a_cancellation_after_a_retry_goes_on_though_it_was_its_last_attempt(
    bench: Bench, attempts: int
) -> None:
    step_id = bench.submit()
    bench.set(step_id, max_attempts=attempts)
    claim = bench.claimed(step_id)
    with bench.session() as session:
        actions.cancel(session, claim.job_id)
    # Another part of the job had failed meanwhile, and somebody has asked for another try.
    with bench.session() as session:
        session.execute(update(Job).where(Job.id == claim.job_id).values(cancel_requested_at=None))

    with bench.session() as session:
        claims.stop_canceled(session, claim)

    assert bench.read(step_id).state is JobState.QUEUED
    assert bench.job_of(step_id).state in (JobState.QUEUED, JobState.RUNNING)
    assert bench.claimed(step_id).attempt == 2
