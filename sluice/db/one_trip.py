"""One statement in a transaction of its own, in one round trip: for what every message of the job engine pays for.

A session waits for PostgreSQL three times (tenant, statement, commit), and what Python does meanwhile takes longer than
PostgreSQL does. Here everything is sent as one batch of libpq's pipeline mode, which is one implicit transaction
(PostgreSQL manual, "Pipeline Mode"), in statements that are prepared once for each connection.
"""

from __future__ import annotations

import hashlib
import re
import select
from collections import namedtuple
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from sluice.db.base import TENANT_SETTING
from sluice.db.session import Sessions

Statement = tuple[str, Mapping[str, Any]]

_PARAMETER: Final = re.compile(r"%\((\w+)\)s")
# Transaction-local, so that a pooled connection never carries a tenant into its next use.
_SET_TENANT: Final = f"SELECT set_config('{TENANT_SETTING}', %(tenant)s, true)"


def in_one_trip(sessions: Sessions, tenant_id: UUID, statement: str, values: Mapping[str, Any]) -> Any:
    """The first row of what the statement answers, a named tuple, or None; committed, as this tenant.

    Values are numbers, texts, UUIDs, truth values or None, for `%(name)s`; their types are what the statement makes of
    them. Errors are SQLAlchemy's, and then nothing was changed, unless the connection was lost: then nobody knows.
    """
    statements = ((_SET_TENANT, {"tenant": tenant_id}), (statement, values))
    with _errors_of_sqlalchemy(), closing(sessions.kw["bind"].raw_connection()) as connection:
        trip = _Trip(connection)
        try:
            try:
                return trip.make(*statements)
            except InvalidSqlStatementName:
                # psycopg drops every prepared statement of a connection after a rollback. Nothing was run.
                trip.prepare_anew()
                return trip.make(*statements)
        except BaseException as error:
            # Lost, or left in between, by a time limit for one: then nobody knows what is still under way on it.
            if trip.is_under_way:
                connection.invalidate(error)
            raise


@contextmanager
def _errors_of_sqlalchemy() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise DBAPIError.instance(None, None, error, psycopg.Error) from error


@dataclass
class _Prepared:
    """What we have prepared on a connection, itself included."""

    names: set[bytes] = field(default_factory=set)
    # Part of every name, so that none can be there already, whatever was dropped.
    generation: int = 0
    # A `Transformer`, once there is one: it remembers how each type of PostgreSQL's is read.
    reader: Any = None


class _Trip:
    """A batch of prepared statements to PostgreSQL and back."""

    def __init__(self, connection: PoolProxiedConnection) -> None:
        driver: Any = connection.driver_connection
        self._driver: psycopg.Connection[Any] = driver
        self._libpq: PGconn = driver.pgconn
        self._prepared: _Prepared = connection.info.setdefault("prepared", _Prepared())
        self.is_under_way = True

    def make(self, *statements: Statement) -> Any:
        """Send them all; the first row that the last one answered, or None, once all of it is committed."""
        self.is_under_way = True
        self._libpq.enter_pipeline_mode()
        # What each answer will be to: the preparation of the statement of that name, or None for its execution.
        sent = [one for statement, values in statements for one in self._send(statement, values)]
        self._libpq.pipeline_sync()
        while self._libpq.flush():
            self._wait(select.POLLOUT)
        results = []
        while (result := self._next_result()).status != ExecStatus.PIPELINE_SYNC:
            results.append(result)
        self._libpq.exit_pipeline_mode()
        self.is_under_way = False
        # A rollback takes back what was done, not what was prepared. The commit may fail too: that is one answer more.
        for name, result in zip(sent, results, strict=False):
            if name is not None and result.status == ExecStatus.COMMAND_OK:
                self._prepared.names.add(name)
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
        return self._first_row(results[-1])

    def prepare_anew(self) -> None:
        """Prepare every statement again, when next it is needed."""
        self._prepared.names.clear()
        self._prepared.generation += 1

    def _first_row(self, result: PGresult) -> Any:
        if result.ntuples == 0:
            return None
        reader = self._prepared.reader = self._prepared.reader or Transformer(self._driver)
        reader.set_pgresult(result)
        row = _row_type(tuple((result.fname(number) or b"").decode() for number in range(result.nfields)))
        return reader.load_row(0, row._make)

    def _send(self, statement: str, values: Mapping[str, Any]) -> Iterator[bytes | None]:
        digest, text, parameters = _numbered(statement)
        name = b"sluice_%s_%d" % (digest, self._prepared.generation)
        if name not in self._prepared.names:
            self._libpq.send_prepare(name, text)
            yield name
        self._libpq.send_query_prepared(name, [_as_text(values[parameter]) for parameter in parameters])
        yield None

    def _next_result(self) -> PGresult:
        while True:
            while self._libpq.is_busy():
                self._wait(select.POLLIN)
                self._libpq.consume_input()
            # None ends the results of one statement of the batch, or all, when the connection was lost.
            if (result := self._libpq.get_result()) is not None:
                return result
            if self._libpq.status != ConnStatus.OK:
                raise psycopg.OperationalError("PostgreSQL closed the connection.")

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._libpq.socket, event)
        poll.poll()


@cache
def _numbered(statement: str) -> tuple[bytes, bytes, tuple[str, ...]]:
    """A digest of the statement, its text with parameters as PostgreSQL numbers them, and their names in that order."""
    parameters = tuple(dict.fromkeys(_PARAMETER.findall(statement)))
    text = _PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", statement).encode()
    return hashlib.sha256(text).hexdigest()[:16].encode(), text, parameters


def _as_text(value: Any) -> bytes | None:
    return None if value is None else str(value).encode()


@cache
def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names)  # noqa: PYI024 - which fields there are depends on the statement
