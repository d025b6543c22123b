"""Keeping a claimed step: a thread that renews the lease and listens for a cancellation while the work goes on."""

from __future__ import annotations

import time
from threading import Condition, Thread
from types import TracebackType
from typing import Final, Self

from sqlalchemy.exc import SQLAlchemyError

from services.workers.liveness import Liveness
from sluice.db.session import Sessions, tenant_session
from sluice.jobs import claims
from sluice.jobs.claims import Canceled, Claim, OwnershipLost
from sluice.kill_points import KillPoint, strike
from sluice.settings import JobSettings
from sluice.telemetry import logger

# A cancellation is seen this soon; the lease is renewed less often, because that is a write.
_LOOK_SECONDS: Final = 1.0

log = logger()


class Lease:
    """The right to a step for as long as the block runs: `with keeper.keep(claim) as lease: ... lease.check() ...`."""

    def __init__(self, keeper: Keeper, claim: Claim) -> None:
        self.claim = claim
        self.renewed_at = time.monotonic()
        self.lost = False
        self.canceled = False
        self._keeper = keeper

    def __enter__(self) -> Self:
        self._keeper.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.watch(None)

    def should_stop(self) -> bool:
        """Whether going on is pointless: canceled, or the step belongs to somebody else."""
        return self.lost or self.canceled

    def check(self) -> None:
        """Raise `Canceled` or `OwnershipLost` when going on is pointless."""
        if self.lost:
            raise OwnershipLost(f"Attempt {self.claim.attempt} no longer owns step {self.claim.step_id}.")
        if self.canceled:
            raise Canceled


class Keeper:
    """Keeps the one lease that this process has at a time. Its thread outlives steps: starting one is not free."""

    def __init__(self, sessions: Sessions, settings: JobSettings, liveness: Liveness) -> None:
        self._sessions = sessions
        self._settings = settings
        self._liveness = liveness
        self._changed = Condition()
        self._lease: Lease | None = None
        self._thread: Thread | None = None
        self._idle = False

    def keep(self, claim: Claim) -> Lease:
        """The lease of a step that was claimed just now."""
        return Lease(self, claim)

    def watch(self, lease: Lease | None) -> None:
        """Keep this lease from now on, or none; on return the one before it is left alone."""
        with self._changed:
            self._lease = lease
            if self._thread is None:
                self._thread = Thread(target=self._run, name="lease-keeper", daemon=True)
                self._thread.start()
            if lease is not None:
                strike(KillPoint.IN_HEARTBEAT, lease.claim.document_id)
                if self._idle:
                    self._changed.notify()

    def _run(self) -> None:
        look = min(_LOOK_SECONDS, self._settings.heartbeat_seconds)
        with self._changed:
            while True:
                watched = self._lease
                if watched is None:
                    self._idle = True
                    self._changed.wait()
                    self._idle = False
                    continue
                self._changed.wait(look)
                # A step that ends meanwhile waits for the look to end, and is then left alone.
                if self._lease is watched and not watched.should_stop():
                    self._look_after(watched)

    def _look_after(self, lease: Lease) -> None:
        self._liveness.keep()
        try:
            if time.monotonic() - lease.renewed_at < self._settings.heartbeat_seconds:
                with tenant_session(self._sessions, lease.claim.tenant_id) as session:
                    lease.canceled = claims.cancel_requested(session, lease.claim)
                return
            strike(KillPoint.IN_HEARTBEAT, lease.claim.document_id)
            with tenant_session(self._sessions, lease.claim.tenant_id) as session:
                lease.canceled = claims.heartbeat(session, lease.claim, self._settings)
            lease.renewed_at = time.monotonic()
        except OwnershipLost:
            lease.lost = True
        except SQLAlchemyError as error:
            # PostgreSQL is away. The work goes on; its own writes are fenced, should the lease run out meanwhile.
            log.warning("lease.unreachable", step_id=str(lease.claim.step_id), error=type(error).__name__)
