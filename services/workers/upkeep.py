"""What a dispatcher does once a minute: old rows removed, stores compared when it is time, their drift shown."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import Counter, Gauge

from sluice.db.unscoped import UnscopedSessions, unscoped_session
from sluice.jobs import dispatch, recovery, retention
from sluice.settings import JobSettings

pruned = Counter("sluice_pruned", "Rows removed because they were kept for long enough", ["table"])
drift_gauge = Gauge(
    "sluice_store_drift",
    "Points, objects and rows that the doctor found missing or orphaned, and left so",
    ["store", "kind"],
)
# Those that wait or run are counted more often, by the sweeper.
jobs_gauge = Gauge("sluice_jobs", "Jobs by state", ["state"])
_EVERY_SECONDS: Final = 60.0


class Upkeep:
    """Looks after what grows and what drifts; one dispatcher at a time does it, all of them show the drift."""

    def __init__(self, sessions: UnscopedSessions, settings: JobSettings) -> None:
        self._sessions = sessions
        self._settings = settings
        self._next = time.monotonic() + _EVERY_SECONDS

    def run_if_due(self) -> None:
        """Do it, unless it is too early."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_SECONDS
        removed: dict[str, int] = {}
        with unscoped_session(self._sessions) as session:
            if recovery.lead_sweeping(session):
                removed = retention.prune(session, self._settings)
                retention.submit_due_sweeps(session, self._settings)
            found = retention.drift(session)
            finished = dispatch.count_finished(session)
        for table, number in removed.items():
            pruned.labels(table).inc(number)
        for state, number in finished.items():
            jobs_gauge.labels(state.value).set(number)
        drift_gauge.clear()
        for (store, kind), number in found.items():
            drift_gauge.labels(store, kind).set(number)
