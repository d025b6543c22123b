"""Replaying dead letters: the work that was given up begins again, in the transaction that closes the letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from sluice.db.session import Sessions, TenantSession, tenant_session
from sluice.documents.reading import ReadingOptions
from sluice.documents.reread import reread
from sluice.errors import Conflict, Invalid, NotFound
from sluice.identity import audit
from sluice.jobs import actions, confirmation, dead_letters, endings, outbox
from sluice.jobs.bulk import Outcome, batches
from sluice.jobs.dead_letters import LetterFilter, Resolution
from sluice.jobs.models import DeadLetter, Job, JobStep
from sluice.jobs.state import JobState
from sluice.settings import JobSettings

REPLAY_JOB: Final = "replay"


def replay(
    session: TenantSession,
    letter_id: UUID,
    *,
    options: dict[str, Any] | None = None,
    settings: JobSettings,
    by: UUID,
) -> DeadLetter:
    """Have the letter's work done again, and close it; `replay_job_id` is the job to watch.

    Without options its job is tried again from its last checkpoint; with them (`ocr`, `skip_pages`, `parser`) the
    document is read anew by a job of its own. A letter that was replayed already is answered as it is, and nothing
    begins. `Conflict` when it was discarded, or belongs to no work that could be done again.
    """
    letter, job = _held(session, letter_id)
    if letter.resolution == Resolution.DISCARDED:
        raise Conflict(
            "The letter was discarded already; there is nothing to replay.",
            code="letter_resolved",
            resolution=letter.resolution,
        )
    if letter.resolved_at is not None:
        return letter
    if job is None:
        raise Conflict(
            "The letter belongs to no job that is still there: its message could not be read, or its document was "
            "erased. Discard it.",
            code="not_replayable",
        )
    _replay(session, letter, job, options, settings, by)
    facts = {"options": options} if options else {}
    audit.record(session, "dead_letter.replay", "dead_letter", letter_id, by=by, job_id=letter.replay_job_id, **facts)
    return letter


def replay_all(
    sessions: Sessions,
    tenant_id: UUID,
    wanted: LetterFilter,
    *,
    options: dict[str, Any] | None = None,
    confirm: int | None,
    settings: JobSettings,
    by: UUID,
) -> Outcome:
    """Replay every open letter that fits: exactly those that were counted. What cannot be replayed stays open.

    Raises `Invalid` for an empty filter or options that make no sense for any document, and `Conflict` unless
    `confirm` is the number of letters.
    """
    ReadingOptions.of(options)
    chosen = _confirmed(sessions, tenant_id, wanted, "replay", confirm=confirm, by=by, options=options)
    changed = 0
    for batch in batches(chosen):
        # Most letters are those of failed jobs, which are tried again a hundred at a time.
        closed = set() if options else _retry_jobs(sessions, tenant_id, batch, settings, by)
        rest = [letter_id for letter_id in batch if letter_id not in closed]
        changed += len(closed) + sum(_replayed(sessions, tenant_id, each, options, settings, by) for each in rest)
    return _outcome(sessions, tenant_id, wanted, "replay", len(chosen), changed, by)


def discard_all(sessions: Sessions, tenant_id: UUID, wanted: LetterFilter, *, confirm: int | None, by: UUID) -> Outcome:
    """Discard every open letter that fits: exactly those that were counted."""
    chosen = _confirmed(sessions, tenant_id, wanted, "discard", confirm=confirm, by=by)
    changed = 0
    for batch in batches(chosen):
        with tenant_session(sessions, tenant_id) as session:
            changed += dead_letters.discard_all(session, batch, by=by)
    return _outcome(sessions, tenant_id, wanted, "discard", len(chosen), changed, by)


def _held(session: Session, letter_id: UUID) -> tuple[DeadLetter, Job | None]:
    """The letter and its job, both locked, the job first."""
    letter = dead_letters.get(session, letter_id)
    job = endings.hold(session, letter.job_id) if letter.job_id else None
    return dead_letters.get(session, letter_id, lock=True), job


def _replay(
    session: Session, letter: DeadLetter, job: Job, options: dict[str, Any] | None, settings: JobSettings, by: UUID
) -> None:
    if options:
        again = _read_anew(session, job, options, settings)
    else:
        again = job
        tried = actions.retry_all(session, [job.id], settings, by=by, how=Resolution.REPLAYED)
        if not tried and letter.origin == "broker":
            _send_again(session, letter)
    dead_letters.resolve(session, letter, Resolution.REPLAYED, by, replay_job_id=again.id)
    session.flush()


def _read_anew(session: Session, job: Job, options: dict[str, Any], settings: JobSettings) -> Job:
    if job.version_id is None:
        raise Invalid(f"A job of the kind {job.kind!r} reads no document and takes no options; replay it without.")
    return reread(session, job.version_id, kind=REPLAY_JOB, options=options, settings=settings)


def _send_again(session: Session, letter: DeadLetter) -> None:
    """Promise another message for the step, if it waits; one that runs or has ended needs none."""
    waiting = select(JobStep).where(JobStep.id == letter.step_id, JobStep.state == JobState.QUEUED)
    step = session.scalars(waiting).one_or_none()
    if step is not None:
        step.run_after = session.scalars(select(func.now())).one()
        step.dispatched_at = None
        outbox.promise(session, step)


def _retry_jobs(
    sessions: Sessions, tenant_id: UUID, letter_ids: Sequence[UUID], settings: JobSettings, by: UUID
) -> set[UUID]:
    """Try the jobs of these letters again where they can be; the letters that this closed."""
    chosen = select(DeadLetter.id).where(DeadLetter.id.in_(letter_ids))
    with tenant_session(sessions, tenant_id) as session:
        of_open = select(DeadLetter.job_id).where(DeadLetter.id.in_(letter_ids), DeadLetter.resolved_at.is_(None))
        jobs = {job_id for job_id in session.scalars(of_open) if job_id is not None}
        tried = actions.retry_all(session, sorted(jobs), settings, by=by, how=Resolution.REPLAYED)
        closed = chosen.where(DeadLetter.job_id.in_(tried), DeadLetter.resolution == Resolution.REPLAYED)
        return set(session.scalars(closed))


def _replayed(
    sessions: Sessions,
    tenant_id: UUID,
    letter_id: UUID,
    options: dict[str, Any] | None,
    settings: JobSettings,
    by: UUID,
) -> bool:
    """Replay one letter of many; False when it was closed meanwhile or cannot be replayed (so)."""
    try:
        with tenant_session(sessions, tenant_id) as session:
            letter, job = _held(session, letter_id)
            if letter.resolved_at is not None or job is None:
                return False
            _replay(session, letter, job, options, settings, by)
    except (Invalid, NotFound, Conflict):
        return False
    return True


def _confirmed(
    sessions: Sessions,
    tenant_id: UUID,
    wanted: LetterFilter,
    what: str,
    *,
    confirm: int | None,
    by: UUID,
    **facts: Any,
) -> Sequence[UUID]:
    """The letters to deal with: their ids alone, and no more than were confirmed and one."""
    wanted.require_some()
    with tenant_session(sessions, tenant_id) as session:
        chosen = confirmation.confirmed(
            confirm,
            count=lambda: dead_letters.count_open(session, wanted),
            read=lambda limit: dead_letters.open_ids(session, wanted, limit=limit),
        )
        detail = {"filter": wanted.as_facts(), "matching": len(chosen), **{k: v for k, v in facts.items() if v}}
        audit.record(session, f"dead_letters.{what}", "dead_letters", by=by, **detail)
    return chosen


def _outcome(
    sessions: Sessions, tenant_id: UUID, wanted: LetterFilter, what: str, matching: int, changed: int, by: UUID
) -> Outcome:
    outcome = Outcome(matching, changed, matching - changed)
    with tenant_session(sessions, tenant_id) as session:
        facts = {"filter": wanted.as_facts(), **asdict(outcome)}
        audit.record(session, f"dead_letters.{what}.done", "dead_letters", by=by, **facts)
    return outcome
