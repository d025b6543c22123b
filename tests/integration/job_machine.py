"""A state machine that does everything that may happen to jobs, in any order, with the real SQL.

After each step it reads the rows back and checks what must hold for them. Time is simulated: `time_passes` moves every
moment that the engine compares with the clock into the past.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from sluice.errors import SluiceError
from sluice.jobs import claims, dispatch, recovery
from sluice.jobs.claims import Canceled, Claim
from sluice.jobs.models import Job
from sluice.jobs.state import Action
from tests.integration.job_bench import SETTINGS, Bench
from tests.integration.job_world import WORKERS, JobWorld

_MOST_JOBS: Final = 3
# Less than any back-off; more than any back-off and a lease; more than a message may take as well. Nothing between, or
# what comes next would depend on how fast the machine is.
_PASSING: Final = (1, 100, 1_000)
# Every attempt of every part of every job, one a round, and some.
_MOST_ROUNDS: Final = 40

# Chooses among however many there are.
picks = st.integers(0, 11)


class _Crash(Exception):
    """The process died here."""


class JobMachine(JobWorld, RuleBasedStateMachine):
    """Three workers, a broker that loses and repeats, a relay and a sweeper, and people who cancel and retry."""

    def __init__(self, bench: Bench) -> None:
        RuleBasedStateMachine.__init__(self)
        JobWorld.__init__(self, bench)

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
        self._sweep()

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
    @rule(pick=picks)
    def fall_asleep(self, pick: int) -> None:
        """A worker's lease runs out while it does not know; its step is queued again."""
        self._expire(self._claims[self._busy(pick)])

    @precondition(lambda self: self._claims and self._idle())
    @rule(pick=picks, how=st.sampled_from(("heartbeat", "go_on", "finish", "fan_out", "fail", "retry_later")))
    def wake_up_too_late(self, pick: int, how: str) -> None:
        """A worker sleeps past its lease, another takes its step, and the first one goes on."""
        zombie = self._busy(pick)
        step_id = self._claims[zombie].step_id
        self._expire(self._claims[zombie])
        self._now = self._look()
        self._claim(self._idle()[0], step_id)
        self._now = self._look()
        pick = sorted(self._claims).index(zombie)
        {
            "heartbeat": lambda: self.heartbeat(pick),
            "go_on": lambda: self.go_on(pick, 1),
            "finish": lambda: self.finish(pick, 0),
            "fan_out": lambda: self.finish(pick, 2),
            "fail": lambda: self.fail(pick),
            "retry_later": lambda: self.retry_later(pick, blameless=False),
        }[how]()

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
