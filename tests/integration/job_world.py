"""The world of the state machine: workers with their claims, the broker's messages, and how a worker writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from sluice.errors import Conflict
from sluice.jobs import actions, claims, outbox, recovery
from sluice.jobs.claims import Canceled, Claim, OwnershipLost
from sluice.jobs.models import JobStep
from sluice.jobs.state import ALLOWED_ACTIONS, Action, JobState
from tests.integration.job_bench import SETTINGS, Bench
from tests.integration.job_history import History, Seen, look

WORKERS: Final = ("first", "second", "third")
_EXPIRE: Final = text(
    "UPDATE job_steps SET lease_until = now() - interval '1 second' WHERE id = :id AND state = 'running'"
)


class JobWorld:
    """Everything that is not in the rows: who holds which claim, and which messages are on their way."""

    def __init__(self, bench: Bench, queues: Iterator[int] = count()) -> None:  # noqa: B008 - a new queue for each run
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

    def _act(self, action: Action, job_id: UUID, *, in_bulk: bool) -> bool:
        """Do it if the job's state allows it, and be refused if not; whether it was done."""
        job = self._now.jobs[job_id]
        # In bulk, one that was asked to stop already is not counted: nothing about it would change.
        changes = not (in_bulk and action is Action.CANCEL and job["cancel_requested_at"] is not None)
        allowed = changes and action in ALLOWED_ACTIONS[JobState(job["state"])]
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

    def _expire(self, claim: Claim) -> None:
        with self._bench.as_dispatcher() as session:
            session.execute(_EXPIRE, {"id": claim.step_id})
        self._sweep()

    def _sweep(self) -> None:
        self._bench.sweep()
        with self._bench.as_dispatcher() as session:
            recovery.requeue_undelivered(session, SETTINGS, recovery.overdue_queues(session, SETTINGS))

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
            actions.cancel(session, job_id)
        else:
            actions.retry(session, job_id, SETTINGS)
    except Conflict:
        return False
    return True
