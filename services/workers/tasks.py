"""From a message to a step that is run once: claim, run, and record how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from prometheus_client import Histogram
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from services.workers.lease import Lease
from services.workers.liveness import dead_holder, expire
from services.workers.resources import Resources, resources
from services.workers.steps import STEPS
from sluice.db.session import is_outage, tenant_session
from sluice.errors import DocumentUnreadable, Invalid, NotFound, SluiceError, TemporarilyUnavailable
from sluice.jobs import claims
from sluice.jobs.claims import Canceled, Claim, OwnershipLost
from sluice.jobs.maintenance import submit_doctor
from sluice.kill_points import KillPoint, strike
from sluice.telemetry import bind, logger
from sluice.wire.messages import RunStep

log = logger()
T = TypeVar("T")
step_duration = Histogram(
    "sluice_step_duration_seconds",
    "Time from claim to end of a step",
    ["step", "outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
# How long a message waits for PostgreSQL to come back before it leaves the step to the sweeper.
_PATIENCE: Final = 30.0
_TIME_TO_DIE: Final = 2.0
_BETWEEN_LOOKS: Final = 0.2
# The step that does all of a document's work and begins it again: what others have put into the index stays for the
# parts that will not run again. Search shows none of it, and the doctor frees it when nobody tries the job again.
_ALONE: Final = "ingest"
_UNKNOWN_STEP: Final = (
    "This worker has no code for the step {step!r}: it is older or newer than what made the job. Run workers of one "
    "version, then retry."
)


def run_step(message: RunStep, *, redelivered: bool = False) -> None:
    """Claim the step that the message names and run it; do nothing when it is not to be had."""
    it = resources()
    try:
        claim = _patiently(lambda: _claim(it, message))
        if claim is None and redelivered:
            claim = _patiently(lambda: _inherit(it, message))
    except (DBAPIError, PoolTimeoutError) as error:
        if not is_outage(error):
            raise
        # Not the step's fault: the sweeper sends another message for it when PostgreSQL is back.
        log.warning("step.left_to_sweeper", step_id=str(message.step_id), error=type(error).__name__)
        return
    if claim is None:
        log.info("step.not_claimed", step_id=str(message.step_id))
        return
    bind(tenant_id=claim.tenant_id, job_id=claim.job_id, document_id=claim.document_id, step=claim.step)
    strike(KillPoint.AFTER_CLAIM, claim.document_id)
    started = time.monotonic()
    try:
        outcome = _run(it, claim)
    except (DBAPIError, PoolTimeoutError) as error:
        if not is_outage(error):
            raise
        # How it ended could not be written down for as long as one waits: its lease runs out.
        log.warning("step.left_to_sweeper", step_id=str(message.step_id), error=type(error).__name__)
        return
    strike(KillPoint.AFTER_COMMIT_BEFORE_ACK, claim.document_id)
    seconds = time.monotonic() - started
    step_duration.labels(claim.step, outcome).observe(seconds)
    log.info("step.ended", outcome=outcome, attempt=claim.attempt, seconds=round(seconds, 3))


def _patiently(write: Callable[[], T]) -> T:
    # The first time without the machinery of retrying, which would cost every message more than its claim's row.
    try:
        return write()
    except (DBAPIError, PoolTimeoutError) as error:
        if not is_outage(error):
            raise
    for attempt in Retrying(
        retry=retry_if_exception(is_outage),
        wait=wait_exponential_jitter(initial=0.2, max=3),
        stop=stop_after_delay(_PATIENCE),
        reraise=True,
    ):
        with attempt:
            return write()
    raise AssertionError("Retrying either returns or raises")


def _claim(it: Resources, message: RunStep) -> Claim | None:
    holder = it.liveness.hold()
    return claims.claim_at_once(
        it.sessions, message.tenant_id, message.step_id, worker=it.worker, settings=it.jobs, holder=holder
    )


def _inherit(it: Resources, message: RunStep) -> Claim | None:
    """Take the step over from a process that is dead, as its message coming back says it may be."""
    holder = it.liveness.hold()
    # The broker may notice a death before PostgreSQL does.
    deadline = time.monotonic() + _TIME_TO_DIE
    while True:
        with tenant_session(it.sessions, message.tenant_id) as session:
            gone = dead_holder(session, message.step_id, it.jobs)
            if gone is not None:
                claim = claims.claim(
                    session, message.step_id, worker=it.worker, settings=it.jobs, holder=holder, gone=gone
                )
                if claim is None:
                    # Out of attempts: for the sweeper to fail, without waiting for a lease that nobody renews.
                    expire(session, message.step_id, gone)
                return claim
            running = claims.is_running(session, message.step_id)
        if not running or time.monotonic() >= deadline:
            return None
        time.sleep(_BETWEEN_LOOKS)


def _run(it: Resources, claim: Claim) -> str:  # noqa: PLR0911 - a table of what each kind of end means
    try:
        step = _code_of(claim)
        with it.keeper.keep(claim) as lease:
            step(it, claim, lease)
    except OwnershipLost:
        log.warning("step.ownership_lost", attempt=claim.attempt)
        return "ownership_lost"
    except Canceled:
        return _record(it, claim, "canceled")
    except (DocumentUnreadable, Invalid, NotFound) as error:
        log.info("document.unreadable", code=error.code, detail=error.detail)
        return _record(it, claim, "failed", error)
    except TemporarilyUnavailable as error:
        log.warning("step.part_away", code=error.code, detail=error.detail)
        return _record(it, claim, "postponed", error)
    except (DBAPIError, PoolTimeoutError) as error:
        if not is_outage(error):
            return _record_unexpected(it, claim, error)
        log.warning("step.part_away", code="database_unavailable")
        away = TemporarilyUnavailable("PostgreSQL does not answer.", code="database_unavailable")
        return _record(it, claim, "postponed", away)
    except Exception as error:  # noqa: BLE001 - whatever a step may raise must end in a recorded attempt
        return _record_unexpected(it, claim, error)
    return "ready"


def _code_of(claim: Claim) -> Callable[[Resources, Claim, Lease], None]:
    if claim.step not in STEPS:
        raise Invalid(_UNKNOWN_STEP.format(step=claim.step), code="step_unknown")
    return STEPS[claim.step]


def _record_unexpected(it: Resources, claim: Claim, error: Exception) -> str:
    log.error("step.unexpected_error", exc_info=error)
    kind = type(error).__name__
    detail = f"An error that nobody foresaw ({kind}). The worker's log has it under job {claim.job_id}."
    unexpected = SluiceError(detail, code="internal_error", cause_class=kind, cause_message=str(error))
    return _record(it, claim, "retried", unexpected)


def _record(it: Resources, claim: Claim, outcome: str, error: SluiceError | None = None) -> str:
    """Write down how the step ended; if PostgreSQL stays away, the lease runs out and the sweeper does it."""

    def write() -> None:
        with tenant_session(it.sessions, claim.tenant_id) as session:
            if outcome == "canceled":
                claims.stop_canceled(session, claim)
            elif outcome == "failed" and error is not None:
                claims.fail(session, claim, error)
            elif error is not None:
                claims.retry_later(session, claim, error, it.jobs, blameless=outcome == "postponed")

    forgets = outcome in ("canceled", "failed") and claim.step == _ALONE
    try:
        if forgets:
            _patiently(lambda: _prove(it, claim))
    except OwnershipLost:
        return "ownership_lost"
    if forgets:
        _forget_points(it, claim)
    try:
        _patiently(write)
    except OwnershipLost:
        if forgets:
            _patiently(lambda: _have_stores_mended(it, claim))
        return "ownership_lost"
    return outcome


def _prove(it: Resources, claim: Claim) -> None:
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.prove(session, claim)


def _have_stores_mended(it: Resources, claim: Claim) -> None:
    """The step was lost after it was proved to be ours: a later attempt may have put there what was then deleted."""
    with tenant_session(it.sessions, claim.tenant_id) as session:
        submit_doctor(session, claim.tenant_id, it.jobs, repair=True)


def _forget_points(it: Resources, claim: Claim) -> None:
    """Free what the version has in the index. Search never showed it, so a fault here costs only space.

    While the step is still ours: a later attempt must not lose what it puts there.
    """
    assert claim.version_id is not None  # noqa: S101 - asked before
    try:
        it.index.delete_versions(claim.tenant_id, [claim.version_id])
    except TemporarilyUnavailable as error:
        log.warning("step.points_left", code=error.code)
