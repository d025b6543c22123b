"""Sessions: one transaction each, and one tenant each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction, sessionmaker, with_loader_criteria
from sqlalchemy.pool import ConnectionPoolEntry

from sluice.db.base import TENANT_SETTING, TenantOwned
from sluice.settings import DatabaseSettings


class TenantSession(Session):
    """A session that reads, changes and adds rows of one tenant only."""

    @property
    def tenant_id(self) -> UUID:
        """The tenant of this session; `KeyError` when there is none, never a default."""
        tenant_id: UUID = self.info["tenant_id"]
        return tenant_id


Sessions = sessionmaker[TenantSession]
KEEPALIVES: Final = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}
"""What libpq is told, so that a connection whose other end is gone does not stay open."""

_IDLE_SECONDS: Final = 1.0


def create_sessions(settings: DatabaseSettings) -> Sessions:
    """A factory of tenant sessions on a pool of connections of the role that row-level security binds."""
    return sessionmaker(connect(settings.url.get_secret_value(), settings.pool_size), class_=TenantSession)


def connect(url: str, pool_size: int = 5) -> Engine:
    """A pool of connections that notices dead ones, after a restart of the server or behind a balancer."""
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_recycle=600,
        connect_args={"connect_timeout": 5, **KEEPALIVES},
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_ping_if_idle, engine))
    return engine


def _note_use(_: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_if_idle(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _: Any) -> None:
    # `pool_pre_ping` asks every time: a fifth of what a short transaction takes. What was used a moment ago is alive,
    # or the error says so and the work is done again.
    if time.monotonic() - record.info.get("used_at", -_IDLE_SECONDS) < _IDLE_SECONDS:
        return
    try:
        alive = engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        alive = False
    if not alive:
        raise InvalidatePoolError("PostgreSQL has closed the connection.")


@contextmanager
def tenant_session(sessions: Sessions, tenant_id: UUID) -> Iterator[TenantSession]:
    """One transaction of one tenant: committed when the block ends, rolled back when it raises."""
    with sessions(info={"tenant_id": tenant_id}) as session, session.begin():
        yield session


@event.listens_for(TenantSession, "after_begin")
def _tell_postgres(session: TenantSession, _: SessionTransaction, connection: Any) -> None:
    driver = connection.connection.driver_connection
    # Every transaction pays for it: in a pipeline, PostgreSQL is waited for once, and not for its BEGIN as well.
    with _as_sqlalchemy_says(connection), driver.pipeline():
        _set_tenant(driver, session.tenant_id)


def _set_tenant(driver: psycopg.Connection[Any], tenant_id: UUID) -> None:
    # Transaction-local, so that a pooled connection never carries a tenant into its next use.
    driver.execute("SELECT set_config(%(name)s, %(value)s, true)", {"name": TENANT_SETTING, "value": str(tenant_id)})


@contextmanager
def _as_sqlalchemy_says(connection: Connection) -> Iterator[None]:
    """Raise errors of the driver as SQLAlchemy would, and give up a connection that is broken."""
    try:
        yield
    except psycopg.Error as error:
        driver: Any = connection.connection.driver_connection
        broken = bool(driver.closed)
        if broken:
            connection.invalidate(error)
        raise DBAPIError.instance(None, None, error, psycopg.Error, connection_invalidated=broken) from error


@event.listens_for(TenantSession, "do_orm_execute")
def _filter_by_tenant(state: ORMExecuteState) -> None:
    # Text has no entities to filter: row-level security alone binds it.
    if state.is_column_load or state.is_relationship_load or state.is_insert or not state.is_orm_statement:
        return
    session = state.session
    if not isinstance(session, TenantSession):
        raise TypeError("only a TenantSession may read tenants' rows")
    tenant_id = session.tenant_id
    state.statement = state.statement.options(
        with_loader_criteria(TenantOwned, lambda owned: owned.tenant_id == tenant_id, include_aliases=True)
    )


def is_outage(error: BaseException) -> bool:
    """Whether PostgreSQL was away or shut the connection, so that the same work may succeed later."""
    if isinstance(error, PoolTimeoutError | InterfaceError | OperationalError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated
