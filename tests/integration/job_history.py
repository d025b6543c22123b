"""What was seen of some jobs, one look after another, and what may never be seen (I1 to I7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from sluice.jobs.state import FINISHED, LIVE, NEXT_STATES, JobState

_LOOK: Final = text(
    """
    WITH steps AS (SELECT * FROM job_steps WHERE queue = :queue)
    SELECT
      (SELECT coalesce(json_agg(s ORDER BY s.id), '[]') FROM steps s),
      (SELECT coalesce(json_agg(j ORDER BY j.id), '[]') FROM jobs j WHERE j.id IN (SELECT job_id FROM steps)),
      (SELECT coalesce(json_agg(a ORDER BY a.id), '[]') FROM job_attempts a WHERE a.step_id IN (SELECT id FROM steps)),
      (SELECT coalesce(json_agg(o ORDER BY o.id), '[]') FROM outbox o WHERE o.queue = :queue)
    """
)
_Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """All rows of the jobs of one queue, at one moment."""

    jobs: dict[UUID, _Row] = field(default_factory=dict)
    steps: dict[UUID, _Row] = field(default_factory=dict)
    attempts: dict[UUID, _Row] = field(default_factory=dict)
    messages: dict[UUID, _Row] = field(default_factory=dict)

    def steps_of(self, job_id: UUID) -> list[_Row]:
        """The steps of a job."""
        return [step for step in self.steps.values() if step["job_id"] == str(job_id)]


def look(session: Session, queue: str) -> Seen:
    """The rows as they are now."""
    steps, jobs, attempts, messages = session.execute(_LOOK, {"queue": queue}).one()
    return Seen(*({UUID(row["id"]): row for row in rows} for rows in (jobs, steps, attempts, messages)))


class History:
    """Compares each look with the one before, and with what must always hold."""

    def __init__(self) -> None:
        self._last = Seen()

    def add(self, seen: Seen, retried: Collection[UUID]) -> None:
        """Look again; `retried` are the jobs that a person had tried again since the last look."""
        last, self._last = self._last, seen
        _one_live_attempt(seen)
        _attempts_increase(last, seen)
        _allowed_moves(last, seen, retried)
        _ready_means_all_parts(seen)
        _somebody_is_responsible(seen)


def _one_live_attempt(seen: Seen) -> None:
    """I1: a step that runs has one attempt that has not ended; any other has none."""
    live = Counter(row["step_id"] for row in seen.attempts.values() if row["ended_at"] is None)
    for step in seen.steps.values():
        assert live[step["id"]] == (step["state"] == "running"), f"{live[step['id']]} live attempts: {step}"


def _attempts_increase(last: Seen, seen: Seen) -> None:
    """I2: a step's number only grows, each attempt is written down once, and one that ended stays as it was."""
    for step_id, step in seen.steps.items():
        numbers = [row["attempt"] for row in seen.attempts.values() if row["step_id"] == step["id"]]
        assert sorted(numbers) == list(range(1, step["attempt"] + 1)), f"attempts {numbers} of {step}"
        assert step["attempt"] >= (last.steps[step_id]["attempt"] if step_id in last.steps else 0)
    for attempt_id, attempt in last.attempts.items():
        if attempt["ended_at"] is not None:
            assert seen.attempts[attempt_id] == attempt, "an attempt that had ended was changed"


def _allowed_moves(last: Seen, seen: Seen, retried: Collection[UUID]) -> None:
    """I3 and I6: every move is in the table, and only a person brings back what has ended."""
    for rows, before in ((seen.jobs, last.jobs), (seen.steps, last.steps)):
        for row_id, row in rows.items():
            new, old = JobState(row["state"]), JobState(before[row_id]["state"]) if row_id in before else None
            assert old is None or new == old or new in NEXT_STATES[old], f"{old} became {new}: {row}"
    for job_id, job in last.jobs.items():
        if JobState(job["state"]) in FINISHED and job_id not in retried:
            assert seen.jobs[job_id]["state"] == job["state"], f"{job['state']} became {seen.jobs[job_id]['state']}"


def _ready_means_all_parts(seen: Seen) -> None:
    """I4: a job is ready when every step of it is, and each part is counted once."""
    for job_id, job in seen.jobs.items():
        steps = seen.steps_of(job_id)
        done = sum(step["step"] == "embed" and step["state"] == "ready" for step in steps)
        assert job["parts_done"] == done, f"{job['parts_done']} parts are counted, {done} are ready"
        if job["state"] == "ready":
            assert job["parts_done"] == job["parts_total"]
            assert all(step["state"] == "ready" for step in steps), f"ready, but {steps}"
        assert (job["finished_at"] is not None) == (JobState(job["state"]) in FINISHED), job
    effective = Counter(row["step_id"] for row in seen.attempts.values() if row["outcome"] == "ready")
    for step in seen.steps.values():
        assert effective[step["id"]] == (step["state"] == "ready"), f"{effective[step['id']]} attempts had an effect"


def _somebody_is_responsible(seen: Seen) -> None:
    """I5: a job that lives has a step with a lease, or one with a message to come, or one that the sweeper will find."""
    promised = {row["step_id"] for row in seen.messages.values() if row["published_at"] is None}
    for job_id, job in seen.jobs.items():
        if JobState(job["state"]) not in LIVE:
            continue
        steps = seen.steps_of(job_id)
        leased = [step for step in steps if step["state"] == "running" and step["lease_until"] is not None]
        waiting = [step for step in steps if step["state"] == "queued"]
        for step in waiting:
            # Published and not claimed: after a while the sweeper takes it for lost.
            assert step["id"] in promised or step["dispatched_at"] is not None, f"nobody will wake {step}"
        assert leased or waiting, f"{job['state']}, and nobody will ever end it: {steps}"
