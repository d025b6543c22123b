"""The dispatcher's side of a job: whose turn it is, and what the queues look like. Sees all tenants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import Session

from sluice.jobs.models import Job, JobStep, OutboxMessage
from sluice.jobs.state import FINISHED, LIVE, JobState
from sluice.settings import JobSettings

# A worker says every few seconds that it is there; one that has not for this long is gone.
WORKER_SILENCE_SECONDS: Final = 45
# Turns of the tenants that wait for a queue: what a tenant has with the broker counts as turns it has had, or the
# oldest backlog would take every free place. Only the first few messages of each tenant are looked at, however many
# wait.
_TURNS: Final = """
    SELECT w.id, w.step_id, w.available_at, w.place + coalesce(a.number, 0) AS turn
    FROM tenants t
    CROSS JOIN LATERAL (
      SELECT o.id, o.step_id, o.available_at, row_number() OVER (ORDER BY o.available_at, o.id) AS place
      FROM outbox o
      WHERE o.tenant_id = t.id AND o.queue = :queue AND o.published_at IS NULL AND o.available_at <= now()
      ORDER BY o.available_at, o.id
      LIMIT :most
    ) w
    LEFT JOIN (
      SELECT tenant_id, count(*) AS number FROM job_steps
      WHERE queue = :queue AND state IN ('queued', 'running') AND dispatched_at IS NOT NULL GROUP BY tenant_id
    ) a ON a.tenant_id = t.id
"""
# Due messages, as many as the queue has room for: what it may hold, less what of it is with the broker or a worker.
# An array, which is computed once; a join would be computed for every message that waits.
_IS_NEXT: Final = text(
    f"""
    outbox.id = ANY(ARRAY(
      SELECT id FROM ({_TURNS}) turns ORDER BY turn, available_at, id
      LIMIT greatest(0, :most - (
        SELECT count(*) FROM job_steps
        WHERE queue = :queue AND state IN ('queued', 'running') AND dispatched_at IS NOT NULL
      ))
    ))
    """  # noqa: S608 - constants
)
_MARK: Final = text(
    """
    WITH published AS (
      UPDATE outbox SET published_at = now() WHERE id = ANY(:ids) RETURNING step_id
    ), held AS MATERIALIZED (
      -- In the order in which everybody locks steps, or two could wait for each other.
      SELECT id FROM job_steps
      WHERE id IN (SELECT step_id FROM published) AND state IN ('queued', 'running')
      ORDER BY id FOR UPDATE
    )
    UPDATE job_steps SET dispatched_at = now() WHERE id IN (SELECT id FROM held)
    """
)
_WAITING: Final = text(
    """
    SELECT name, (
      SELECT coalesce(sum(concurrency), 1) FROM workers WHERE heartbeat_at > now() - make_interval(secs => :silence)
    ) AS slots
    FROM unnest(CAST(:queues AS text[])) AS wanted(name)
    WHERE EXISTS (SELECT FROM outbox o WHERE o.queue = name AND o.published_at IS NULL AND o.available_at <= now())
    """
)
_PLACE: Final = text(
    f"SELECT place FROM (SELECT step_id, row_number() OVER (ORDER BY turn, available_at, id) AS place "  # noqa: S608 - same
    f"FROM ({_TURNS}) turns) places WHERE step_id = :step_id"
)
_LONGEST_LINE: Final = 10_000
# For each tenant that waits: since when nothing of its was published, though something was due.
_STARVATION: Final = text(
    """
    SELECT coalesce(max(extract(epoch FROM now() - greatest(w.since, s.served))), 0)
    FROM tenants t
    CROSS JOIN LATERAL (
      SELECT o.queue, min(o.available_at) AS since FROM outbox o
      WHERE o.tenant_id = t.id AND o.published_at IS NULL AND o.available_at <= now() GROUP BY o.queue
    ) w
    LEFT JOIN LATERAL (
      SELECT max(o.published_at) AS served FROM outbox o WHERE o.tenant_id = t.id AND o.queue = w.queue
    ) s ON true
    """
)


def waiting_queues(session: Session, queues: Sequence[str]) -> dict[str, int]:
    """Those of the queues for which something is due, and how many steps the workers that are there can run at once."""
    found = session.execute(_WAITING, {"queues": list(queues), "silence": WORKER_SILENCE_SECONDS})
    return {row.name: int(row.slots) for row in found}


def due_messages(session: Session, queue: str, settings: JobSettings, *, slots: int = 1) -> Sequence[OutboxMessage]:
    """Lock the messages to publish now: one of each tenant in turn, as many as the queue has room for.

    The queue stays shallow, `settings.in_flight` messages for each of the `slots` steps that workers can run at once,
    so that a tenant with 500 documents cannot put them all in front of another tenant's single one.
    """
    return session.scalars(
        select(OutboxMessage)
        .where(_IS_NEXT, OutboxMessage.published_at.is_(None))
        .order_by(OutboxMessage.id)
        .with_for_update(skip_locked=True),
        {"queue": queue, "most": settings.in_flight * slots},
    ).all()


def mark_published(session: Session, messages: Sequence[OutboxMessage]) -> None:
    """Record that the broker has confirmed these messages."""
    session.execute(_MARK, {"ids": [message.id for message in messages]})


def worker_slots(session: Session) -> int:
    """How many steps the workers that are there can run at once; 1 when none says that it is."""
    alive = text("SELECT sum(concurrency) FROM workers WHERE heartbeat_at > now() - make_interval(secs => :silence)")
    return int(session.scalar(alive, {"silence": WORKER_SILENCE_SECONDS}) or 1)


def place_in_line(session: Session, job_id: UUID) -> int | None:
    """How many steps are before this job's next one, and one: 1 is next. None when nothing of it waits.

    A number and nothing else may leave: the steps before it are other tenants' too.
    """
    step = session.execute(
        select(JobStep.id, JobStep.queue, JobStep.dispatched_at)
        .where(JobStep.job_id == job_id, JobStep.state == JobState.QUEUED)
        .order_by(JobStep.dispatched_at.asc().nulls_last(), JobStep.id)
        .limit(1)
    ).one_or_none()
    if step is None:
        return None
    waiting = [JobStep.queue == step.queue, JobStep.state == JobState.QUEUED, JobStep.dispatched_at.is_not(None)]
    if step.dispatched_at is not None:
        waiting.append(JobStep.dispatched_at < step.dispatched_at)
        return 1 + (session.scalar(select(func.count()).select_from(JobStep).where(*waiting)) or 0)
    with_broker = session.scalar(select(func.count()).select_from(JobStep).where(*waiting)) or 0
    place = session.scalar(_PLACE, {"queue": step.queue, "most": _LONGEST_LINE, "step_id": step.id})
    # None: it waits for its next attempt, which is not due yet.
    return None if place is None else with_broker + int(place)


def count_live(session: Session) -> dict[JobState, int]:
    """How many jobs wait and how many run, over all tenants: by their steps, few of which are live at a time."""
    live_steps = select(JobStep.job_id).where(JobStep.state.in_(LIVE))
    return _counted(session, LIVE, select(Job.state, func.count()).where(Job.id.in_(live_steps)))


def count_finished(session: Session) -> dict[JobState, int]:
    """How many jobs have ended in each way, over all tenants. Reads every job."""
    return _counted(session, FINISHED, select(Job.state, func.count()))


def _counted(session: Session, states: Iterable[JobState], query: Select[JobState, int]) -> dict[JobState, int]:
    found = {JobState(state): number for state, number in session.execute(query.group_by(Job.state))}
    return {state: found.get(state, 0) for state in states}


def oldest_heartbeat(session: Session, settings: JobSettings) -> float | None:
    """Unix time of the longest silence among running steps, or None when nothing runs."""
    oldest = session.scalar(select(func.min(JobStep.lease_until)).where(JobStep.state == JobState.RUNNING))
    return oldest.timestamp() - settings.lease_seconds if oldest else None


def starvation_seconds(session: Session) -> float:
    """The longest time that a tenant has waited without anything of its being published; 0 when nobody waits."""
    return float(session.scalar(_STARVATION) or 0)
