"""A worker's sign of life: a row that says that it is there, and how many steps it can run at once."""

from __future__ import annotations

from threading import Event, Thread
from typing import Final

import psycopg

from sluice.ids import new_id
from sluice.settings import DatabaseSettings
from sluice.telemetry import logger

_EVERY_SECONDS: Final = 10.0
_HERE: Final = """
    INSERT INTO workers (id, name, concurrency) VALUES (%(id)s, %(name)s, %(concurrency)s)
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()
"""
log = logger()


class Presence:
    """Says it from a thread, until the process ends or `leave` is called."""

    def __init__(self, settings: DatabaseSettings, *, name: str, concurrency: int) -> None:
        self._url = settings.url.get_secret_value().replace("postgresql+psycopg://", "postgresql://", 1)
        self._facts = {"id": new_id(), "name": name, "concurrency": concurrency}
        self._left = Event()
        self._thread = Thread(target=self._say, name="presence", daemon=True)

    def begin(self) -> None:
        """Say it from now on."""
        self._thread.start()

    def leave(self) -> None:
        """Say that the worker is gone; without it, others notice after a while."""
        self._left.set()
        self._thread.join(timeout=_EVERY_SECONDS)
        self._execute("DELETE FROM workers WHERE id = %(id)s")

    def _say(self) -> None:
        while True:
            self._execute(_HERE)
            if self._left.wait(_EVERY_SECONDS):
                return

    def _execute(self, statement: str) -> None:
        # A connection each time: one that stays open would be inherited by every child that the worker forks.
        try:
            with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
                connection.execute(statement, self._facts)
        except psycopg.Error as error:
            log.warning("presence.unreachable", error=type(error).__name__)
