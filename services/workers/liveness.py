"""Proof of life: a lock in PostgreSQL that a process holds for as long as it lives.

The server frees it the moment the process dies, so a step whose worker was killed goes on when its message comes back,
and need not wait until its lease runs out. (Solid Queue and DBOS decide by heartbeat alone, and wait.)
"""

from __future__ import annotations

from threading import Lock
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from sluice.db.session import KEEPALIVES
from sluice.settings import DatabaseSettings, JobSettings
from sluice.telemetry import logger

# The first of the two keys of our locks; no other use of advisory locks in this database has it.
_CLASS = 7_201_100
_PATIENCE_MS = 2_000
_OPTIONS: Any = KEEPALIVES
log = logger()


class Liveness:
    """The lock of one process. Needs a connection of its own to PostgreSQL itself, not to a pooler of transactions."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._url = settings.url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
        self._guard = Lock()
        self._connection: psycopg.Connection | None = None
        self._number: int | None = None

    def hold(self) -> int | None:
        """The number of the lock, held; None while PostgreSQL cannot be reached: then leases alone count."""
        with self._guard:
            if self._connection is None or self._connection.closed:
                self._connection = self._take()
            return self._number if self._connection else None

    def keep(self) -> None:
        """Take the lock again if the connection was cut."""
        with self._guard:
            if self._connection is None:
                return
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error:
                self._connection.close()
                self._connection = self._take()

    def close(self) -> None:
        """Give the lock up, as a death would."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _take(self) -> psycopg.Connection | None:
        connection = None
        try:
            # Should only our side of the last connection have been cut, the server holds its lock until it notices.
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, options=f"-c lock_timeout={_PATIENCE_MS}", **_OPTIONS
            )
            if self._number is None:
                (self._number,) = connection.execute("SELECT nextval('worker_locks')::integer").fetchone() or (None,)
            connection.execute("SELECT pg_advisory_lock(%s, %s)", [_CLASS, self._number])
        except psycopg.Error as error:
            log.warning("liveness.unreachable", error=type(error).__name__)
            if connection is not None:
                connection.close()
            return None
        return connection


def dead_holder(session: Session, step_id: UUID, settings: JobSettings) -> int | None:
    """The lock of the process that runs this step, if nobody holds it any more; None when somebody may.

    A lock is freed by the server's own restart too: for one lease after it nothing is concluded.
    """
    holder = session.scalar(
        text(
            "SELECT holder FROM job_steps WHERE id = :id AND state = 'running' "
            "AND pg_postmaster_start_time() < now() - make_interval(secs => :lease)"
        ),
        {"id": step_id, "lease": settings.lease_seconds},
    )
    if holder is None:
        return None
    # Until this transaction ends, so that of two who look, one concludes.
    free = text("SELECT pg_try_advisory_xact_lock(:class, CAST(:holder AS integer))")
    return int(holder) if session.scalar(free, {"class": _CLASS, "holder": holder}) else None


def expire(session: Session, step_id: UUID, holder: int) -> None:
    """End the lease of a step whose process is dead, for the sweeper to see."""
    session.execute(
        text(
            "UPDATE job_steps SET lease_until = now() - interval '1 second' "
            "WHERE id = :id AND state = 'running' AND holder = :holder"
        ),
        {"id": step_id, "holder": holder},
    )
