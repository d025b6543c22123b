"""A state machine that does everything that may happen to jobs, in any order, with the real SQL.

After each step it reads the rows back and checks what must hold for them. Time is simulated: `time_passes` moves every
moment that the engine compares with the clock into the past.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any, Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from sluice.errors import Conflict, SluiceError
from sluice.jobs import actions, claims, dispatch, outbox, recovery, repository
from sluice.jobs.claims import Canceled, Claim, OwnershipLost
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import ALLOWED_ACTIONS, Action, JobState
from tests.integration.job_bench import SETTINGS, Bench
from tests.integration.job_history import History, Seen, look

WORKERS: Final = ("first", "second", "third")
_MOST_JOBS: Final = 3
# More than a back-off, a lease, the time that a message may take, and all of them together.
_PASSING: Final = (5, 40, 70, 130, 1_000)
# Every attempt of every part of every job, one a round, and some.
_MOST_ROUNDS: Final = 40

# Chooses among however many there are.
picks = st.integers(0, 11)


class _Crash(Exception):
    """The process died here."""


class JobMachine(RuleBasedStateMachine):
    """Three workers, a broker that loses and repeats, a relay and a sweeper, and people who cancel and retry."""

    def __init__(self, bench: Bench, queues: Iterator[int] = count()) -> None:  # noqa: B008 - a new queue for each run
        super().__init__()
        self._bench = replace(bench, queue=f"{bench.queue}.{next(queues)}")
        self._jobs: list[UUID] = []
        # Messages that are with the broker, each the step that it names.
        self._broker: list[UUID] = []
        self._claims: dict[str, Claim] = {}
        # The lock that each worker's process holds; a process that takes its place holds another one.
        self._locks = count(1_000_000)
        self._held_by = {worker: next(self._locks) for worker in WORKERS}
        self._history = History()
        # The rows as they are between two rules.
        self._now = Seen()
        self._retried: set[UUID] = set()

    @initialize()
    def begin(self) -> None:
        self.submit()

    # What people do

    @precondition(lambda self: len(self._jobs) < _MOST_JOBS)
    @rule()
    def submit(self) -> None:
        step_id = self._bench.submit()
        self._jobs.append(self._bench.job_of(step_id).id)

    @precondition(lambda self: self._jobs)
    @rule(pick=picks, in_bulk=st.booleans())
    def cancel(self, pick: int, in_bulk: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        self._act(Action.CANCEL, self._jobs[pick % len(self._jobs)], in_bulk=in_bulk)

    @precondition(lambda self: self._jobs)
    @rule(pick=picks, in_bulk=st.booleans())
    def admin_retry(self, pick: int, in_bulk: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        job_id = self._jobs[pick % len(self._jobs)]
        if self._act(Action.RETRY, job_id, in_bulk=in_bulk):
            self._retried.add(job_id)

    # What the dispatcher and the broker do

    @rule(dies=st.booleans())
    def relay(self, dies: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        """Publish what is due; a relay that dies has published, and has not written that down."""
        with suppress(_Crash), self._bench.as_dispatcher() as session:
            messages = dispatch.due_messages(session, self._bench.queue, SETTINGS)
            self._broker += [message.step_id for message in messages]
            if dies:
                raise _Crash
            dispatch.mark_published(session, messages)

    @rule()
    def sweep(self) -> None:
        with self._bench.as_dispatcher() as session:
            recovery.requeue_expired(session)
            recovery.requeue_undelivered(session, SETTINGS)

    @precondition(lambda self: self._broker)
    @rule(pick=picks)
    def redeliver(self, pick: int) -> None:
        self._broker.append(self._broker[pick % len(self._broker)])

    @precondition(lambda self: self._broker)
    @rule(pick=picks)
    def lose_message(self, pick: int) -> None:
        self._take_message(pick)

    @precondition(lambda self: self._broker)
    @rule(pick=picks)
    def give_message_up(self, pick: int) -> None:
        """The broker makes a dead letter of it, and the recorder finds that."""
        refused = SluiceError("The broker gave it up.", code="message_refused")
        with self._bench.as_dispatcher() as session:
            recovery.refuse_delivery(session, self._take_message(pick), refused, SETTINGS)

    @rule(seconds=st.sampled_from(_PASSING))
    def time_passes(self, seconds: int) -> None:
        with self._bench.as_dispatcher() as session:
            parameters = {"queue": self._bench.queue, "seconds": seconds}
            session.execute(
                text(
                    "UPDATE job_steps SET run_after = run_after - make_interval(secs => :seconds), "
                    "lease_until = lease_until - make_interval(secs => :seconds), "
                    "dispatched_at = dispatched_at - make_interval(secs => :seconds) WHERE queue = :queue"
                ),
                parameters,
            )
            session.execute(
                text(
                    "UPDATE outbox SET available_at = available_at - make_interval(secs => :seconds) "
                    "WHERE queue = :queue AND published_at IS NULL"
                ),
                parameters,
            )

    # What workers do

    @precondition(lambda self: self._idle() and self._broker)
    @rule(pick=picks)
    def claim(self, pick: int) -> None:
        self._claim(self._idle()[0], self._take_message(pick))

    @precondition(lambda self: self._idle())
    @rule(pick=picks)
    def claim_what_is_due(self, pick: int) -> None:
        self.relay(dies=False)
        if self._broker:
            self.claim(pick)

    @precondition(lambda self: self._claims)
    @rule(pick=picks, replaced=st.booleans())
    def fall_asleep(self, pick: int, replaced: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        """A worker's lease runs out while it does not know; its step is queued again, and perhaps taken."""
        claim = self._claims[self._busy(pick)]
        with self._bench.as_dispatcher() as session:
            session.execute(
                text(
                    "UPDATE job_steps SET lease_until = now() - interval '1 second' WHERE id = :id AND state = 'running'"
                ),
                {"id": claim.step_id},
            )
        self.sweep()
        if replaced and self._idle():
            self._now = self._look()
            self._claim(self._idle()[0], claim.step_id)

    @precondition(lambda self: self._claims)
    @rule(pick=picks)
    def crash(self, pick: int) -> None:
        self._die(self._busy(pick))

    @precondition(lambda self: self._idle() and self._orphans())
    @rule(pick=picks)
    def inherit(self, pick: int) -> None:
        """Take over from a process that is known to be dead, as a message that comes back says."""
        orphans = self._orphans()
        step = orphans[pick % len(orphans)]
        self._claim(self._idle()[0], UUID(step["id"]), gone=step["holder"])

    @precondition(lambda self: self._claims)
    @rule(pick=picks)
    def heartbeat(self, pick: int) -> None:
        def beat(session: Session, claim: Claim) -> None:
            if claims.heartbeat(session, claim, SETTINGS):
                raise Canceled

        self._write(self._busy(pick), beat)

    @precondition(lambda self: self._claims)
    @rule(pick=picks, done=st.integers(0, 5))
    def go_on(self, pick: int, done: int) -> None:
        def report(session: Session, claim: Claim) -> None:
            claims.progress(session, claim, claim.step, 0, 5)
            claims.count_done(session, claim, done)

        self._write(self._busy(pick), report)

    @precondition(lambda self: self._claims)
    @rule(pick=picks, parts=st.sampled_from((0, 0, 0, 1, 3)))
    def finish(self, pick: int, parts: int) -> None:
        self._write(self._busy(pick), lambda session, claim: self._finish(session, claim, parts), ends=True)

    @precondition(lambda self: self._claims)
    @rule(pick=picks)
    def fail(self, pick: int) -> None:
        error = SluiceError("It cannot be read.", code="damaged")
        self._write(self._busy(pick), lambda session, claim: claims.fail(session, claim, error), ends=True)

    @precondition(lambda self: self._claims)
    @rule(pick=picks, blameless=st.booleans())
    def retry_later(self, pick: int, blameless: bool) -> None:  # noqa: FBT001 - Hypothesis names it
        error = SluiceError("Something was away.", code="away")

        def put_off(session: Session, claim: Claim) -> None:
            claims.retry_later(session, claim, error, SETTINGS, blameless=blameless)

        self._write(self._busy(pick), put_off, ends=True)

    # What must hold

    @invariant()
    def nothing_impossible_happened(self) -> None:
        self._now = self._look()
        self._history.add(self._now, retried=self._retried)
        self._retried = set()

    def teardown(self) -> None:
        """Once the faults stop, everything comes to an end."""
        try:
            self._come_to_rest()
        finally:
            with self._bench.session() as session:
                session.execute(delete(Job).where(Job.id.in_(self._jobs)).execution_options(synchronize_session=False))

    def _come_to_rest(self) -> None:
        for worker in WORKERS:
            self._die(worker)
        for _ in range(_MOST_ROUNDS):
            if all(job["state"] not in ("queued", "running") for job in self._now.jobs.values()):
                return
            self._one_by_one(lambda: self.time_passes(1_000), self.sweep, lambda: self.relay(dies=False))
            while self._broker:
                step_id = self._broker.pop()
                self._one_by_one(lambda: self._claim(WORKERS[0], step_id))  # noqa: B023 - called at once
                if self._claims:
                    self._one_by_one(lambda: self.finish(0, 0))
        raise AssertionError(f"it never came to rest: {self._now}")

    def _one_by_one(self, *steps: Callable[[], None]) -> None:
        for step in steps:
            step()
            self.nothing_impossible_happened()

    def _act(self, action: Action, job_id: UUID, *, in_bulk: bool) -> bool:
        """Do it if the job's state allows it, and be refused if not; whether it was done."""
        allowed = action in ALLOWED_ACTIONS[JobState(self._now.jobs[job_id]["state"])]
        with self._bench.session() as session:
            if in_bulk and action is Action.CANCEL:
                done = bool(actions.cancel_all(session, [job_id]))
            elif in_bulk:
                done = bool(actions.retry_all(session, [job_id], SETTINGS, by=None))
            else:
                done = _one(session, action, job_id)
        assert done == allowed, f"{action} was {'done' if done else 'refused'}"
        return done

    def _claim(self, worker: str, step_id: UUID, gone: int | None = None) -> None:
        before = self._now.steps[step_id]
        with self._bench.session() as session:
            claim = claims.claim(
                session, step_id, worker=worker, settings=SETTINGS, holder=self._held_by[worker], gone=gone
            )
        if claim is not None:
            assert claim.attempt == before["attempt"] + 1
            self._claims[worker] = claim

    def _finish(self, session: Session, claim: Claim, parts: int) -> None:
        if claim.step == "ingest" and parts:
            steps = [self._step_of(claim, "embed", part) for part in range(parts)]
            claims.fan_out(session, claim, steps, stage="embed", total=parts)
        elif claim.step == "embed":
            if claims.finish_part(session, claim):
                last = self._step_of(claim, "finalize", 0)
                session.add(last)
                session.flush()
                outbox.promise(session, last)
        else:
            claims.finish(session, claim)

    def _step_of(self, claim: Claim, name: str, part: int) -> JobStep:
        step = self._bench.step(part)
        step.step, step.job_id, step.tenant_id = name, claim.job_id, claim.tenant_id
        return step

    def _write(self, worker: str, write: Callable[[Session, Claim], None], *, ends: bool = False) -> None:
        """Let a worker write. One that has lost its step must be refused, and have changed nothing."""
        claim = self._claims[worker]
        before = self._now
        step = before.steps[claim.step_id]
        is_owner = step["state"] == "running" and step["attempt"] == claim.attempt
        try:
            with self._bench.session() as session:
                write(session, claim)
        except OwnershipLost:
            assert not is_owner, "an owner was refused"
            assert self._look() == before, "a worker that had lost its step changed something"
            ends = True
        except Canceled:
            assert is_owner, "only its owner learns that a job is to stop"
            with self._bench.session() as session:
                claims.stop_canceled(session, claim)
            ends = True
        else:
            assert is_owner, "a worker wrote to a step that it had lost"
        if ends:
            del self._claims[worker]

    def _idle(self) -> list[str]:
        return [worker for worker in WORKERS if worker not in self._claims]

    def _busy(self, pick: int) -> str:
        return sorted(self._claims)[pick % len(self._claims)]

    def _die(self, worker: str) -> None:
        self._claims.pop(worker, None)
        self._held_by[worker] = next(self._locks)

    def _orphans(self) -> list[dict[str, Any]]:
        """Steps that run under a lock that nobody holds any more."""
        alive = set(self._held_by.values())
        steps = self._now.steps.values()
        return [step for step in steps if step["state"] == "running" and step["holder"] not in alive]

    def _take_message(self, pick: int) -> UUID:
        return self._broker.pop(pick % len(self._broker))

    def _look(self) -> Seen:
        with self._bench.as_dispatcher() as session:
            return look(session, self._bench.queue)


def _one(session: Session, action: Action, job_id: UUID) -> bool:
    try:
        if action is Action.CANCEL:
            repository.cancel(session, job_id)
        else:
            repository.retry(session, job_id, SETTINGS)
    except Conflict:
        return False
    return True
