"""Sessions that see every tenant: for a handful of uses, and for nothing else.

These are sign-in, the dispatcher, the first administrator, and what `services/api/all_tenants.py` lists.
import-linter holds the list of who may import this module. The role behind it owns no table and cannot bypass
row-level security; the migrations give it policies of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session, sessionmaker

from sluice.db.session import connect
from sluice.environment import SettingsError
from sluice.settings import DatabaseSettings

UnscopedSessions = sessionmaker[Session]


def create_unscoped_sessions(settings: DatabaseSettings, pool_size: int = 3) -> UnscopedSessions:
    """A factory of sessions on the role that sees all tenants."""
    if settings.system_url is None:
        raise SettingsError(
            "SLUICE_DATABASE_SYSTEM_URL is not set: this process signs users in or dispatches jobs, and needs the URL "
            "of the role sluice_system."
        )
    return sessionmaker(connect(settings.system_url.get_secret_value(), pool_size))


@contextmanager
def unscoped_session(sessions: UnscopedSessions) -> Iterator[Session]:
    """One transaction over all tenants."""
    with sessions() as session, session.begin():
        yield session
