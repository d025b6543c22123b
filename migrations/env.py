"""How Alembic reaches the database: as the owner of the schema, with a lock timeout, one migrator at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

import sluice.chat.models
import sluice.documents.models
import sluice.identity.models
import sluice.jobs.models  # noqa: F401 - importing the models fills the metadata
from sluice.db.base import Base
from sluice.environment import SettingsError, exit_with_reason
from sluice.settings import MigrationSettings

# Any number that no other use of advisory locks in this database has.
MIGRATION_LOCK = 7_201_000


def run() -> None:
    """Bring the schema to the revision that was asked for."""
    try:
        url = MigrationSettings.from_environment().owner_url.get_secret_value()
    except SettingsError as error:
        exit_with_reason(error)
    with create_engine(url).connect() as connection:
        # Better to fail and be run again than to block every query behind a waiting ALTER TABLE.
        connection.execute(text("SET lock_timeout = '10s'"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()
        context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
        with context.begin_transaction():
            context.run_migrations()


run()
