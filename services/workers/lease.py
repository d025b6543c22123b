"""Keeping a claimed step: a thread that renews the lease and listens for a cancellation while the work goes on."""

from __future__ import annotations

import time
from threading import Event, Thread
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
    """The right to a step for as long as the block runs: `with Lease(...) as lease: ... lease.check() ...`."""

    def __init__(self, sessions: Sessions, claim: Claim, settings: JobSettings, liveness: Liveness) -> None:
        self._sessions = sessions
        self._claim = claim
        self._settings = settings
        self._liveness = liveness
        self._ended = Event()
        self._lost = False
        self._canceled = False
        self._thread = Thread(target=self._keep, name=f"lease-{claim.step_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def should_stop(self) -> bool:
        """Whether going on is pointless: canceled, or the step belongs to somebody else."""
        return self._lost or self._canceled

    def check(self) -> None:
        """Raise `Canceled` or `OwnershipLost` when going on is pointless."""
        if self._lost:
            raise OwnershipLost(f"Attempt {self._claim.attempt} no longer owns step {self._claim.step_id}.")
        if self._canceled:
            raise Canceled

    def _keep(self) -> None:
        strike(KillPoint.IN_HEARTBEAT, self._claim.document_id)
        look = min(_LOOK_SECONDS, self._settings.heartbeat_seconds)
        renewed = time.monotonic()
        while not self._ended.wait(look) and not self.should_stop():
            self._liveness.keep()
            try:
                if time.monotonic() - renewed >= self._settings.heartbeat_seconds:
                    self._canceled = self._renew()
                    renewed = time.monotonic()
                else:
                    self._canceled = self._look()
            except OwnershipLost:
                self._lost = True
            except SQLAlchemyError as error:
                # PostgreSQL is away. The work goes on; its own writes are fenced, should the lease run out meanwhile.
                log.warning("lease.unreachable", step_id=str(self._claim.step_id), error=type(error).__name__)

    def _renew(self) -> bool:
        with tenant_session(self._sessions, self._claim.tenant_id) as session:
            return claims.heartbeat(session, self._claim, self._settings)

    def _look(self) -> bool:
        with tenant_session(self._sessions, self._claim.tenant_id) as session:
            return claims.cancel_requested(session, self._claim)
