"""Whether the database has the schema that this code was written for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from sluice.errors import TemporarilyUnavailable

# Oldest first; the last is what this code needs. A test holds this list to the migrations.
REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006")


def revision(connection: Session | Connection) -> str | None:
    """The schema's revision; `None` before the first migration."""
    if connection.execute(text("SELECT to_regclass('public.alembic_version')")).scalar() is None:
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def require_current(session: Session) -> None:
    """Raise `TemporarilyUnavailable` until the schema is this code's, or a later one.

    A later one is fine: migrations only add what older code does not look at, so that old and new processes can run
    side by side during a rolling update, and an update can be taken back.
    """
    try:
        found = revision(session)
    except ProgrammingError as error:
        raise _behind("none that may be read") from error
    if found is None or found in REVISIONS[:-1]:
        raise _behind(str(found))


def _behind(found: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(
        f"The database has schema revision {found}; this version needs {REVISIONS[-1]}. Run the migrations: the job "
        "`migrate` of the stack does, or `alembic upgrade head`."
    )
