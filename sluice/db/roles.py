"""The database, its three roles and the logins that stand for them: what must be there before the first migration.

A login may carry the role's own name, or another one: then it is a member of the role. So credentials are replaced
without a moment in which nobody can connect: the new login exists beside the old one, whose password runs out an hour
later, when every process has long been started with the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import psycopg
from psycopg import Connection, sql
from sqlalchemy.engine import make_url

OWNER: Final = "sluice_owner"
APP: Final = "sluice_app"
SYSTEM: Final = "sluice_system"
_OLD_LOGIN_LIVES: Final = "1 hour"


@dataclass(frozen=True)
class Login:
    """Who connects with which password, and the role whose privileges that gives."""

    role: str
    user: str
    password: str

    @classmethod
    def of_url(cls, role: str, url: str) -> Self:
        """The login that a PostgreSQL URL names; `ValueError` when it names no user or no password."""
        parsed = make_url(url)
        if not parsed.username or not parsed.password:
            raise ValueError(f"The database URL of {role} names no user or no password.")
        return cls(role, parsed.username, str(parsed.password))


def ensure_database(admin_conninfo: str, database: str, logins: Sequence[Login]) -> None:
    """Make what is missing of database, roles and logins, and set the passwords; safe to repeat.

    `admin_conninfo` is a superuser's. The login of `sluice_owner` owns the database.
    """
    owner = next(login.user for login in logins if login.role == OWNER)
    with psycopg.connect(admin_conninfo, autocommit=True) as connection:
        for login in logins:
            _ensure_login(connection, login)
        name = sql.Identifier(database)
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, sql.Identifier(owner)))
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        for login in logins:
            grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
            connection.execute(grant.format(name, sql.Identifier(login.role)))


def _ensure_login(connection: Connection[Any], login: Login) -> None:
    if login.user != login.role and not _exists(connection, login.role):
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(login.role)))
    verb = sql.SQL("ALTER" if _exists(connection, login.user) else "CREATE")
    # Hashed here: a statement may end up in the server's log.
    password = connection.pgconn.encrypt_password(login.password.encode(), login.user.encode(), b"scram-sha-256")
    connection.execute(
        sql.SQL(
            "{} ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD {} VALID UNTIL 'infinity'"
        ).format(verb, sql.Identifier(login.user), sql.Literal(password.decode()))
    )
    if login.user != login.role:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(login.role), sql.Identifier(login.user)))
    _let_others_expire(connection, login)


def _let_others_expire(connection: Connection[Any], login: Login) -> None:
    others = connection.execute(
        """
        SELECT r.rolname FROM pg_roles r
        WHERE r.rolcanlogin AND r.rolname <> %(user)s
          AND (r.rolname = %(role)s
               OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                          WHERE m.member = r.oid AND g.rolname = %(role)s))
          AND NOT r.rolsuper AND (r.rolvaliduntil IS NULL OR r.rolvaliduntil = 'infinity')
        """,
        {"user": login.user, "role": login.role},
    ).fetchall()
    for (name,) in others:
        end = connection.execute("SELECT (now() + %s::interval)::text", [_OLD_LOGIN_LIVES]).fetchone()
        assert end is not None  # noqa: S101 - a SELECT without FROM has one row
        connection.execute(sql.SQL("ALTER ROLE {} VALID UNTIL {}").format(sql.Identifier(name), sql.Literal(end[0])))


def _exists(connection: Connection[Any], role: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None
