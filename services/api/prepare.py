"""What a deployment needs once, before the API: `python -m services.api.prepare`, safe to run again.

Roles and logins, the schema, the bucket, the first administrator. On Swarm and Compose it is the service `migrate`,
which runs at every deployment; the API is not ready until the schema is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from alembic.config import main as alembic
from psycopg import OperationalError as ServerAway
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError as DatabaseAway
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from sluice.db import roles, schema
from sluice.db.roles import Login
from sluice.db.unscoped import create_unscoped_sessions
from sluice.environment import SettingsError, exit_with_reason
from sluice.errors import TemporarilyUnavailable
from sluice.identity.first_admin import ensure_administrator
from sluice.object_store import S3ObjectStore
from sluice.settings import (
    AdministratorSettings,
    DatabaseSettings,
    MigrationSettings,
    ObjectStoreSettings,
    TelemetrySettings,
)
from sluice.telemetry import configure_logging, logger

log = logger()
_PATIENCE_SECONDS: Final = 300.0
_SAY_EVERY: Final = 10
_AWAY: Final = (ServerAway, DatabaseAway, TemporarilyUnavailable)


def main() -> None:
    """Wait for PostgreSQL and S3, and bring them to what this version needs."""
    try:
        database, owner = DatabaseSettings.from_environment(), MigrationSettings.from_environment()
        administrator, store = AdministratorSettings.from_environment(), ObjectStoreSettings.from_environment()
        configure_logging("migrate", TelemetrySettings.from_environment())
        sessions = create_unscoped_sessions(database, pool_size=1)
    except SettingsError as error:
        exit_with_reason(error)
    try:
        _waiting_for(_ensure_database, database, owner)
        log.info("prepare.database")
        _waiting_for(_migrate, owner)
        _waiting_for(S3ObjectStore(store).ensure_bucket)
        log.info("prepare.bucket")
        made = ensure_administrator(
            sessions,
            tenant=administrator.tenant,
            email=administrator.email,
            password=administrator.password.get_secret_value(),
        )
        log.info("prepare.administrator", email=administrator.email, made=made)
    except _AWAY as error:
        log.error("prepare.part_away", detail=str(error).strip())  # noqa: TRY400 - where in our code does not matter
        raise SystemExit(75) from None  # EX_TEMPFAIL of sysexits.h: whoever runs this shall run it again


def _migrate(owner: MigrationSettings) -> None:
    engine = create_engine(owner.owner_url.get_secret_value(), poolclass=NullPool)
    with engine.connect() as connection:
        found = schema.revision(connection)
    if found is not None and found not in schema.REVISIONS:
        # A version that was rolled back: its code works on the newer schema, and Alembic would not know the way.
        log.warning("prepare.schema_is_newer", found=found, known=schema.REVISIONS[-1])
        return
    alembic(argv=["upgrade", "head"])
    log.info("prepare.schema")


def _waiting_for(step: Callable[..., object], *arguments: object, **options: object) -> None:
    """Do this step, again and again while a server is not there."""

    def say(state: RetryCallState) -> None:
        if state.attempt_number % _SAY_EVERY == 1:
            reason = state.outcome.exception() if state.outcome else None
            log.warning("prepare.waiting", detail=str(reason).strip())

    retrying = Retrying(
        retry=retry_if_exception_type(_AWAY),
        wait=wait_fixed(1),
        stop=stop_after_delay(_PATIENCE_SECONDS),
        before_sleep=say,
        reraise=True,
    )
    retrying(step, *arguments, **options)


def _ensure_database(database: DatabaseSettings, owner: MigrationSettings) -> None:
    if owner.admin_url is None:
        return
    assert database.system_url is not None  # noqa: S101 - create_unscoped_sessions has refused otherwise
    urls = {
        roles.OWNER: owner.owner_url.get_secret_value(),
        roles.APP: database.url.get_secret_value(),
        roles.SYSTEM: database.system_url.get_secret_value(),
    }
    admin = make_url(owner.admin_url.get_secret_value()).set(drivername="postgresql")
    roles.ensure_database(
        admin.render_as_string(hide_password=False),
        str(make_url(urls[roles.OWNER]).database),
        [Login.of_url(role, url) for role, url in urls.items()],
    )


if __name__ == "__main__":
    main()
