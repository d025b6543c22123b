"""PostgreSQL as its operator holds it: restarted, its connections cut, its rows looked at past every policy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any, LiteralString

import psycopg
from psycopg.rows import namedtuple_row

from infra.embedded.credentials import Credentials
from infra.embedded.home import Home
from infra.embedded.platform import Platform
from infra.embedded.ports import kept_ports
from infra.embedded.postgres import DATABASE, superuser_conninfo


class Database:
    """The database of one platform."""

    def __init__(self, platform: Platform, home: Home) -> None:
        self._platform = platform
        self._conninfo = superuser_conninfo(
            kept_ports(home).postgres, Credentials(home).password("postgres"), database=DATABASE
        )

    def rows(self, query: LiteralString, **parameters: Any) -> Sequence[tuple[Any, ...]]:
        """The rows of a query, of any tenant."""
        with psycopg.connect(self._conninfo, connect_timeout=5, autocommit=True) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def records(self, query: LiteralString, **parameters: Any) -> Sequence[Any]:
        """The same, each row with its columns as attributes."""
        with (
            psycopg.connect(self._conninfo, connect_timeout=5, autocommit=True) as connection,
            connection.cursor(row_factory=namedtuple_row) as cursor,
        ):
            return cursor.execute(query, parameters).fetchall()

    def value(self, query: LiteralString, **parameters: Any) -> Any:
        """The only value of a query."""
        ((value,),) = self.rows(query, **parameters)
        return value

    def restart_immediately(self) -> None:
        """Have the server quit without a checkpoint, as `pg_ctl -m immediate` does; return when it is back."""
        (server, *_) = self._platform.pids("postgres")
        os.kill(server, signal.SIGQUIT)
        deadline = time.monotonic() + 30
        while server in self._platform.pids("postgres"):
            assert time.monotonic() < deadline, "PostgreSQL did not quit"
            time.sleep(0.05)
        self._platform.wait_ready("postgres")

    @contextmanager
    def cutting_connections(self, every_seconds: float) -> Iterator[None]:
        """End one client's connection every so often, whatever it does; the one that was used last."""
        ended = Event()

        def cut() -> None:
            while not ended.wait(every_seconds):
                # Away itself, perhaps; then there is nothing to cut.
                with suppress(psycopg.OperationalError):
                    self.rows(
                        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
                        "WHERE backend_type = 'client backend' AND usename LIKE 'sluice%%' AND datname = %(database)s "
                        "ORDER BY state_change DESC LIMIT 1) latest",
                        database=DATABASE,
                    )

        thread = Thread(target=cut, name="cutting-connections", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
