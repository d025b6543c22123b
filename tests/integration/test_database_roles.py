"""Logins: made once, replaced without a moment in which nobody can connect, and never more than their role."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from infra.embedded.credentials import Credentials
from infra.embedded.home import Home
from infra.embedded.platform import Platform
from infra.embedded.postgres import superuser_conninfo
from sluice.db import roles
from sluice.db.roles import Login
from tests.e2e.running import HOME, ROOT


@pytest.fixture
def admin(platform: Platform, variables: dict[str, str]) -> str:
    """How the superuser connects."""
    port = make_url(variables["SLUICE_DATABASE_OWNER_URL"]).port
    assert port is not None
    return superuser_conninfo(port, Credentials(Home(HOME, ROOT)).password("postgres"))


@pytest.fixture
def owner(variables: dict[str, str]) -> Login:
    return Login.of_url(roles.OWNER, variables["SLUICE_DATABASE_OWNER_URL"])


@pytest.fixture
def role(admin: str) -> Iterator[str]:
    """A role of the test's own, dropped with its logins."""
    name = f"test_{uuid4().hex[:8]}"
    yield name
    with psycopg.connect(admin, autocommit=True) as connection:
        for (each,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"{name}%"]):
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE sluice FROM {}").format(sql.Identifier(each)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(each)))


def connected_as(admin: str, login: Login) -> str:
    with psycopg.connect(f"{admin} dbname=sluice user={login.user} password={login.password}") as connection:
        row = connection.execute("SELECT pg_has_role(%s, 'USAGE'), current_user", [login.role]).fetchone()
    assert row is not None
    assert row[0]
    return str(row[1])


def end_of(admin: str, user: str) -> datetime | float | None:
    with psycopg.connect(admin) as connection:
        row = connection.execute(
            "SELECT CASE WHEN rolvaliduntil = 'infinity' THEN NULL ELSE rolvaliduntil - now() END "
            "FROM pg_roles WHERE rolname = %s",
            [user],
        ).fetchone()
    assert row is not None
    return row[0]


def test_a_login_of_the_roles_own_name_can_connect_and_setting_it_up_again_changes_its_password(
    admin: str, owner: Login, role: str
) -> None:
    roles.ensure_database(admin, "sluice", [owner, Login(role, role, "first")])
    assert connected_as(admin, Login(role, role, "first")) == role

    roles.ensure_database(admin, "sluice", [owner, Login(role, role, "second")])

    assert connected_as(admin, Login(role, role, "second")) == role
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connected_as(admin, Login(role, role, "first"))


def test_a_new_login_has_the_roles_privileges_and_the_old_one_runs_out_later_not_now(
    admin: str, owner: Login, role: str
) -> None:
    old, new = Login(role, role, "old"), Login(role, f"{role}_new", "new")
    roles.ensure_database(admin, "sluice", [owner, old])

    roles.ensure_database(admin, "sluice", [owner, new])

    assert connected_as(admin, new) == new.user
    assert connected_as(admin, old) == old.user
    left = end_of(admin, old.user)
    assert isinstance(left, timedelta)
    assert timedelta(minutes=30) < left <= timedelta(hours=1)
    assert end_of(admin, new.user) is None


def test_running_it_again_does_not_give_the_old_login_more_time(admin: str, owner: Login, role: str) -> None:
    old, new = Login(role, role, "old"), Login(role, f"{role}_new", "new")
    roles.ensure_database(admin, "sluice", [owner, old])
    roles.ensure_database(admin, "sluice", [owner, new])
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} VALID UNTIL '2000-01-01'").format(sql.Identifier(old.user)))

    roles.ensure_database(admin, "sluice", [owner, new])

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connected_as(admin, old)


def test_no_login_is_a_superuser_or_passes_row_level_security(admin: str, owner: Login, role: str) -> None:
    roles.ensure_database(admin, "sluice", [owner, Login(role, f"{role}_new", "new")])

    with psycopg.connect(admin) as connection:
        row = connection.execute(
            "SELECT bool_or(rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb) FROM pg_roles WHERE rolname LIKE %s",
            [f"{role}%"],
        ).fetchone()
    assert row == (False,)


@pytest.mark.parametrize("url", ["postgresql://server/sluice", "postgresql://sluice_app@server/sluice"])
def test_a_url_without_user_or_password_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names no user or no password"):
        Login.of_url(roles.APP, url)
