"""Jobs of a tenant that is there for one test, on a queue that no worker consumes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from sluice.db.session import TenantSession, tenant_session
from sluice.db.unscoped import unscoped_session
from sluice.jobs import claims, recovery, repository
from sluice.jobs.claims import Claim
from sluice.jobs.models import Job, JobAttempt, JobStep, OutboxMessage
from sluice.jobs.state import JobState
from sluice.settings import JobSettings
from tests.e2e.running import Stores

SETTINGS: Final = JobSettings(lease_seconds=60, max_attempts=3, backoff_seconds=20, in_flight=4)


@dataclass(frozen=True)
class Bench:
    """One tenant's jobs, on a queue that no worker consumes."""

    stores: Stores
    tenant_id: UUID
    queue: str

    def session(self) -> AbstractContextManager[TenantSession]:
        return tenant_session(self.stores.sessions, self.tenant_id)

    def step(self, part: int = 0) -> JobStep:
        return JobStep(
            step="ingest",
            part=part,
            queue=self.queue,
            max_attempts=SETTINGS.max_attempts,
            idempotency_key=uuid4().bytes * 2,
        )

    def submit(self) -> UUID:
        """A new job of one step; the step's id."""
        with self.session() as session:
            job = repository.submit(session, Job(kind="test", state=JobState.QUEUED), self.step())
            (step,) = repository.steps_of(session, job.id)
            return step.id

    def claim(self, step_id: UUID, worker: str = "first") -> Claim | None:
        with self.session() as session:
            return claims.claim(session, step_id, worker=worker, settings=SETTINGS)

    def claimed(self, step_id: UUID, worker: str = "first") -> Claim:
        claim = self.claim(step_id, worker)
        assert claim is not None
        return claim

    def read(self, step_id: UUID) -> JobStep:
        with self.session() as session:
            step = session.scalars(select(JobStep).where(JobStep.id == step_id)).one()
            session.expunge(step)
            return step

    def job_of(self, step_id: UUID) -> Job:
        with self.session() as session:
            job = session.scalars(
                select(Job).join(JobStep, JobStep.job_id == Job.id).where(JobStep.id == step_id)
            ).one()
            session.expunge(job)
            return job

    def attempts(self, step_id: UUID) -> list[tuple[int, str, str | None]]:
        query = select(JobAttempt.attempt, JobAttempt.worker, JobAttempt.outcome).order_by(JobAttempt.attempt)
        with self.session() as session:
            return [
                (row.attempt, row.worker, row.outcome)
                for row in session.execute(query.where(JobAttempt.step_id == step_id))
            ]

    def messages(self, step_id: UUID) -> list[OutboxMessage]:
        query = select(OutboxMessage).where(OutboxMessage.step_id == step_id).order_by(OutboxMessage.id)
        with self.session() as session:
            found = list(session.scalars(query))
            session.expunge_all()
            return found

    def set(self, step_id: UUID, **values: Any) -> None:
        with self.session() as session:
            session.execute(update(JobStep).where(JobStep.id == step_id).values(**values))

    def expire(self, step_id: UUID) -> None:
        """Let the lease run out, as if the worker had been silent for a minute."""
        self.set(step_id, lease_until=func.now() - text("interval '1 second'"))

    def sweep(self) -> int:
        """Queue again what fell silent, as the dispatcher does; how many steps."""
        with self.as_dispatcher() as session:
            silent = recovery.silent_jobs(session)
        swept = 0
        for job_id in silent:
            with self.as_dispatcher() as session:
                swept += recovery.requeue_expired(session, job_id)
        return swept

    def wait_until_blocked(self) -> None:
        """Return once a transaction waits for a lock that another one has."""
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        for _ in range(2_000):
            with self.session() as session:
                if session.scalar(waiting):
                    return
                session.execute(text("SELECT pg_sleep(0.005)"))
        raise AssertionError("Nobody waits for a lock.")

    def as_dispatcher(self) -> AbstractContextManager[Session]:
        return unscoped_session(self.stores.unscoped)


def fanned_out(bench: Bench, number: int, *, total: int) -> list[UUID]:
    """The steps of a new job whose work was handed to so many parts."""
    claim = bench.claimed(bench.submit())
    with bench.session() as session:
        parts = [bench.step(part) for part in range(number)]
        for part in parts:
            part.job_id, part.tenant_id = claim.job_id, claim.tenant_id
        claims.fan_out(session, claim, parts, stage="embed", total=total)
        return [part.id for part in parts]
