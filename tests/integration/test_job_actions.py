"""What a person may do to jobs: in every state, to one and to many, and never to more than were confirmed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, insert, select

from sluice.errors import Conflict, Invalid, SluiceError
from sluice.identity import audit
from sluice.ids import new_id
from sluice.jobs import actions, bulk, claims, repository, selection
from sluice.jobs.bulk import Outcome
from sluice.jobs.models import DeadLetter, Job, JobStep, OutboxMessage
from sluice.jobs.selection import JobFilter
from sluice.jobs.state import ALLOWED_ACTIONS, Action, JobState
from tests.integration.job_bench import SETTINGS, Bench

# It would send again what no worker takes, and these tests count messages.
pytestmark = pytest.mark.usefixtures("no_dispatcher")

BOOM: Final = SluiceError("The parser tripped.", code="boom")
SOMEBODY: Final = uuid4()


def canceled(bench: Bench, step_id: UUID) -> None:
    with bench.session() as session:
        actions.cancel(session, bench.job_of(step_id).id)


def finished(bench: Bench, step_id: UUID) -> None:
    with bench.session() as session:
        claims.finish(session, bench_claim(bench, step_id))


def failed(bench: Bench, step_id: UUID) -> None:
    claim = bench_claim(bench, step_id)
    with bench.session() as session:
        claims.fail(session, claim, BOOM)


def bench_claim(bench: Bench, step_id: UUID) -> claims.Claim:
    return bench.claimed(step_id)


REACHED: Final[dict[JobState, Callable[[Bench, UUID], object]]] = {
    JobState.QUEUED: lambda bench, step_id: None,
    JobState.RUNNING: bench_claim,
    JobState.READY: finished,
    JobState.FAILED: failed,
    JobState.CANCELED: canceled,
}
EVERY: Final = list(product(Action, JobState))


def job_in(bench: Bench, state: JobState, *, parts: int = 1) -> UUID:
    """A job in this state; a job of many parts has the others waiting, until it ends."""
    with bench.session() as session:
        job = repository.submit(session, Job(kind="test", state=JobState.QUEUED), bench.step())
        for part in range(1, parts):
            step = bench.step(part)
            step.job_id = job.id
            session.add(step)
        job_id, step_id = job.id, repository.steps_of(session, job.id)[0].id
    REACHED[state](bench, step_id)
    assert bench.job_of(step_id).state is state
    return job_id


def do(bench: Bench, action: Action, job_id: UUID) -> None:
    with bench.session() as session:
        if action is Action.CANCEL:
            actions.cancel(session, job_id)
        else:
            actions.retry(session, job_id, SETTINGS, by=SOMEBODY)


def do_to_all(bench: Bench, action: Action, job_ids: list[UUID]) -> list[UUID]:
    with bench.session() as session:
        if action is Action.CANCEL:
            return list(actions.cancel_all(session, job_ids))
        return list(actions.retry_all(session, job_ids, SETTINGS, by=SOMEBODY))


def rows_of(bench: Bench, job_id: UUID) -> list[Any]:
    """Everything about the job that is not an id of its own or a moment; of moments, whether there is one."""
    with bench.session() as session:
        steps = session.scalars(select(JobStep.id).where(JobStep.job_id == job_id)).all()
        tables: list[tuple[Any, Any]] = [
            (Job, Job.id == job_id),
            (JobStep, JobStep.job_id == job_id),
            (OutboxMessage, OutboxMessage.step_id.in_(steps)),
            (DeadLetter, DeadLetter.job_id == job_id),
        ]
        return [
            [
                {name: _comparable(name, value) for name, value in row.items()}
                for row in session.execute(select(*kind.__table__.c).where(of_job).order_by(kind.id)).mappings()
            ]
            for kind, of_job in tables
        ]


def _comparable(name: str, value: Any) -> Any:
    of_its_own = name == "id" or name.endswith("_id") or name in {"idempotency_key", "body", "worker"}
    return value is not None if of_its_own or isinstance(value, datetime) else value


@pytest.mark.parametrize(("action", "state"), EVERY)
@pytest.mark.parametrize("parts", [1, 3])
def test_many_jobs_are_treated_row_by_row_as_one_is(bench: Bench, action: Action, state: JobState, parts: int) -> None:
    alone, among_many = job_in(bench, state, parts=parts), job_in(bench, state, parts=parts)
    before = rows_of(bench, among_many)
    assert before == rows_of(bench, alone)

    if action in ALLOWED_ACTIONS[state]:
        do(bench, action, alone)
    else:
        with pytest.raises(Conflict) as refused:
            do(bench, action, alone)
        assert refused.value.facts["allowed_actions"] == list(ALLOWED_ACTIONS[state])
    changed = do_to_all(bench, action, [among_many])

    assert changed == ([among_many] if action in ALLOWED_ACTIONS[state] else [])
    assert rows_of(bench, among_many) == rows_of(bench, alone)
    assert (rows_of(bench, among_many) == before) == (action not in ALLOWED_ACTIONS[state])


def test_a_second_cancel_of_a_running_job_is_fine_and_changes_no_time(bench: Bench) -> None:
    job_id = job_in(bench, JobState.RUNNING)
    do(bench, Action.CANCEL, job_id)
    with bench.session() as session:
        asked = repository.get(session, job_id).cancel_requested_at

    do(bench, Action.CANCEL, job_id)

    with bench.session() as session:
        job = repository.get(session, job_id)
        assert (job.state, job.cancel_requested_at) == (JobState.RUNNING, asked)


def test_of_two_retries_at_once_one_begins_an_attempt_and_the_other_is_refused(bench: Bench) -> None:
    job_id = job_in(bench, JobState.FAILED)

    def retry(_: int) -> str:
        try:
            do(bench, Action.RETRY, job_id)
        except Conflict as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(4) as people:
        answers = sorted(people.map(retry, range(4)))

    assert answers == ["action_not_allowed"] * 3 + ["done"]
    with bench.session() as session:
        (step,) = repository.steps_of(session, job_id)
        assert (step.attempt, step.max_attempts) == (1, 1 + SETTINGS.max_attempts)
        assert len(bench.messages(step.id)) == 2


def test_a_retried_job_goes_on_from_its_checkpoint_and_counts_on(bench: Bench) -> None:
    step_id = bench.submit()
    claim = bench.claimed(step_id)
    with bench.session() as session:
        claims.checkpoint(session, claim, extracted=True)
        claims.fail(session, claim, BOOM)

    do_to_all(bench, Action.RETRY, [bench.job_of(step_id).id])

    again = bench.claimed(step_id, "second")
    assert (again.attempt, again.checkpoint) == (2, {"extracted": True})


def change(bench: Bench, wanted: JobFilter, action: Action, confirm: int | None) -> Outcome:
    return bulk.change(
        bench.stores.sessions, bench.tenant_id, wanted, action, confirm=confirm, settings=SETTINGS, by=SOMEBODY
    )


def states(bench: Bench) -> dict[JobState, int]:
    with bench.session() as session:
        rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
        return {row[0]: row[1] for row in rows}


def log(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    with bench.session() as session:
        entries = audit.page(session, limit=100)
        assert {found.entry.actor_id for found in entries} <= {SOMEBODY}
        return [(found.entry.action, found.entry.detail) for found in reversed(entries)]


def test_an_empty_filter_is_refused_and_names_what_could_be_in_it(bench: Bench) -> None:
    job_in(bench, JobState.QUEUED)

    with pytest.raises(Invalid) as refused:
        change(bench, JobFilter(), Action.CANCEL, 1)

    assert refused.value.code == "filter_empty"
    assert "`state`" in refused.value.detail
    assert states(bench) == {JobState.QUEUED: 1}


@pytest.mark.parametrize(
    ("confirm", "code"), [(None, "confirmation_needed"), (1, "confirmation_mismatch"), (3, "confirmation_mismatch")]
)
def test_another_number_than_matches_now_does_nothing_and_is_told(bench: Bench, confirm: int | None, code: str) -> None:
    for state in (JobState.QUEUED, JobState.RUNNING, JobState.FAILED, JobState.READY):
        job_in(bench, state)
    before = states(bench)

    with pytest.raises(Conflict) as refused:
        change(bench, JobFilter(kind="test"), Action.CANCEL, confirm)

    assert (refused.value.code, refused.value.facts["matching"]) == (code, 2)
    assert states(bench) == before
    assert log(bench) == []


def test_only_jobs_that_accept_the_action_match_and_the_log_has_it_before_and_after(bench: Bench) -> None:
    for state in JobState:
        job_in(bench, state)

    outcome = change(bench, JobFilter(kind="test"), Action.CANCEL, 2)

    assert outcome == Outcome(matching=2, changed=2, skipped=0)
    facts = {"filter": {"kind": "test"}, "matching": 2}
    assert log(bench) == [("jobs.cancel", facts), ("jobs.cancel.done", {**facts, "changed": 2, "skipped": 0})]
    # The running one ends when its worker looks; asked already, it does not match again.
    assert states(bench) == {
        JobState.CANCELED: 2,
        JobState.RUNNING: 1,
        JobState.READY: 1,
        JobState.FAILED: 1,
    }
    assert change(bench, JobFilter(kind="test"), Action.CANCEL, 0) == Outcome(0, 0, 0)


def test_each_member_of_the_filter_narrows_it(bench: Bench) -> None:
    ours = {"document_id": uuid4(), "source_id": uuid4(), "parent_id": uuid4()}
    with bench.session() as session:
        job = repository.submit(session, Job(kind="odd", **ours, state=JobState.QUEUED), bench.step())
        job.error_code = "boom"
        session.flush()
        job_id, moment = job.id, job.created_at
    job_in(bench, JobState.CANCELED)
    fitting = [
        *({name: value} for name, value in ours.items()),
        {"kind": "odd"},
        {"error_code": "boom"},
        {"state": "queued"},
        {"created_before": moment + timedelta(microseconds=1)},
        {**ours, "kind": "odd", "state": "queued", "created_after": moment},
    ]
    others = [*({name: uuid4()} for name in ours), {"kind": "even"}, {"created_before": moment}, {"state": "ready"}]

    with bench.session() as session:

        def found(given: dict[str, Any]) -> list[UUID]:
            rows = selection.page(session, JobFilter.model_validate(given), before=None, limit=10)
            return [row.id for row in rows]

        assert [found(given) for given in fitting] == [[job_id]] * len(fitting)
        assert [found(given) for given in others] == [[]] * len(others)
        assert len(found({"created_after": moment})) == 2
        assert found({"created_after": datetime.now(UTC) + timedelta(hours=1)}) == []


def test_more_jobs_than_one_transaction_takes_are_canceled_and_tried_again(bench: Bench) -> None:
    number = 1_050
    jobs = [{"id": new_id(), "kind": "test"} for _ in range(number)]
    with bench.session() as session:
        session.execute(insert(Job), jobs)
        session.execute(
            insert(JobStep),
            [
                {
                    "job_id": job["id"],
                    "step": "ingest",
                    "queue": bench.queue,
                    "max_attempts": 3,
                    "idempotency_key": uuid4().bytes * 2,
                }
                for job in jobs
            ],
        )

    assert change(bench, JobFilter(kind="test"), Action.CANCEL, number) == Outcome(number, number, 0)
    assert states(bench) == {JobState.CANCELED: number}
    assert change(bench, JobFilter(state=JobState.CANCELED), Action.RETRY, number) == Outcome(number, number, 0)
    assert states(bench) == {JobState.QUEUED: number}
    with bench.session() as session:
        assert session.scalar(select(func.count()).select_from(OutboxMessage)) == number
        session.execute(delete(Job).execution_options(synchronize_session=False))


def test_a_job_that_ends_between_the_count_and_the_change_is_skipped(bench: Bench) -> None:
    ids = [job_in(bench, JobState.QUEUED) for _ in range(3)]
    with bench.session() as holder, ThreadPoolExecutor(1) as other:
        # The bulk action has counted all three when it comes to this one, and waits.
        holder.execute(select(JobStep.id).where(JobStep.job_id == ids[1]).with_for_update())
        running = other.submit(change, bench, JobFilter(kind="test"), Action.CANCEL, 3)
        bench.wait_until_blocked()
        actions.cancel(holder, ids[1])
        holder.commit()
        outcome = running.result(timeout=30)

    assert outcome == Outcome(matching=3, changed=2, skipped=1)
