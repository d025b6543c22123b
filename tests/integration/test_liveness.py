"""A worker that died is told from one that is slow, by the lock that PostgreSQL frees."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from services.workers.lease import Keeper
from services.workers.liveness import Liveness, dead_holder, expire
from sluice.jobs import actions, claims
from sluice.jobs.claims import Canceled, OwnershipLost
from sluice.settings import DatabaseSettings, JobSettings
from tests.integration.job_bench import SETTINGS, Bench

pytestmark = pytest.mark.usefixtures("no_dispatcher")

# PostgreSQL was started a moment ago: locks are believed after one lease.
BELIEVING = JobSettings(lease_seconds=0.001)


@pytest.fixture
def database(variables: dict[str, str]) -> DatabaseSettings:
    return DatabaseSettings(url=SecretStr(variables["SLUICE_DATABASE_URL"]))


@pytest.fixture
def process(database: DatabaseSettings) -> Iterator[Liveness]:
    """What a worker's process holds; closing its connection is what its death does."""
    liveness = Liveness(database)
    yield liveness
    liveness.close()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(bench: Bench, holder: int | None) -> UUID:
    step_id = bench.submit()
    with bench.session() as session:
        assert claims.claim(session, step_id, worker="first", settings=SETTINGS, holder=holder)
    return step_id


def test_a_step_of_a_living_process_is_not_taken(bench: Bench, process: Liveness) -> None:
    step_id = running(bench, process.hold())

    with bench.session() as session:
        assert dead_holder(session, step_id, BELIEVING) is None


def test_a_step_of_a_dead_process_is_taken_before_its_lease_runs_out(bench: Bench, process: Liveness) -> None:
    holder = process.hold()
    step_id = running(bench, holder)
    process.close()

    with bench.session() as session:
        wait_until(lambda: dead_holder(session, step_id, BELIEVING) == holder)
        claim = claims.claim(session, step_id, worker="second", settings=SETTINGS, gone=holder)

    assert claim is not None
    assert claim.attempt == 2
    assert bench.attempts(step_id) == [(1, "first", "lost"), (2, "second", None)]


def test_of_two_who_look_at_once_one_concludes_that_it_is_dead(bench: Bench, process: Liveness) -> None:
    step_id = running(bench, process.hold())
    process.close()

    with bench.session() as one, bench.session() as other:
        wait_until(lambda: dead_holder(one, step_id, BELIEVING) is not None)

        assert dead_holder(other, step_id, BELIEVING) is None


def test_nothing_is_concluded_while_postgres_is_younger_than_a_lease(bench: Bench, process: Liveness) -> None:
    step_id = running(bench, process.hold())
    process.close()

    with bench.session() as session:
        assert dead_holder(session, step_id, JobSettings(lease_seconds=10**7)) is None


def test_a_step_that_was_claimed_without_a_lock_waits_for_its_lease(bench: Bench) -> None:
    step_id = running(bench, None)

    with bench.session() as session:
        assert dead_holder(session, step_id, BELIEVING) is None


def test_the_lease_of_a_dead_process_that_used_up_all_attempts_is_ended(bench: Bench, process: Liveness) -> None:
    holder = process.hold()
    assert holder is not None
    step_id = running(bench, holder)
    bench.set(step_id, max_attempts=1)
    process.close()

    with bench.session() as session:
        wait_until(lambda: dead_holder(session, step_id, BELIEVING) == holder)
        assert claims.claim(session, step_id, worker="second", settings=SETTINGS, gone=holder) is None
        expire(session, step_id, holder)

    lease_until = bench.read(step_id).lease_until
    assert lease_until is not None
    with bench.as_dispatcher() as session:
        assert lease_until < session.connection().exec_driver_sql("SELECT now()").scalar_one()


def test_a_process_whose_connection_was_cut_takes_its_lock_again(
    bench: Bench, process: Liveness, variables: dict[str, str]
) -> None:
    holder = process.hold()
    step_id = running(bench, holder)
    url = variables["SLUICE_DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", [holder]
        )

    process.keep()

    assert process.hold() == holder
    with bench.session() as session:
        assert dead_holder(session, step_id, BELIEVING) is None


def test_the_keeper_renews_leases_one_after_the_other_and_hears_of_a_cancellation(
    bench: Bench, process: Liveness
) -> None:
    keeper = Keeper(bench.stores.sessions, JobSettings(lease_seconds=60, heartbeat_seconds=0.05), process)
    first, second = bench.claimed(bench.submit()), bench.claimed(bench.submit())

    with keeper.keep(first) as lease:
        before = bench.read(first.step_id).lease_until
        assert before is not None
        wait_until(lambda: (bench.read(first.step_id).lease_until or before) > before)
        lease.check()
    with keeper.keep(second) as lease:
        with bench.session() as session:
            actions.cancel(session, second.job_id)
        wait_until(lease.should_stop)
        with pytest.raises(Canceled):
            lease.check()


def test_the_keeper_hears_that_the_step_was_lost(bench: Bench, process: Liveness) -> None:
    keeper = Keeper(bench.stores.sessions, JobSettings(lease_seconds=60, heartbeat_seconds=0.05), process)
    step_id = bench.submit()

    with keeper.keep(bench.claimed(step_id)) as lease:
        bench.expire(step_id)
        bench.claimed(step_id, "second")
        wait_until(lease.should_stop)
        with pytest.raises(OwnershipLost):
            lease.check()
