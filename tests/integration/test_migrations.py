"""The schema: made from nothing, the same as the models say, and safe to bring up to date from many places at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from infra.embedded.credentials import Credentials
from infra.embedded.home import Home
from infra.embedded.platform import Platform
from infra.embedded.postgres import superuser_conninfo
from sluice.db.roles import OWNER
from tests.e2e.running import HOME, ROOT

Alembic = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def empty_database(platform: Platform, variables: dict[str, str]) -> Iterator[str]:
    """The owner's URL of a database with nothing in it, on the running server."""
    server, _, name = variables["SLUICE_DATABASE_OWNER_URL"].rpartition("/")
    fresh = f"test_{uuid4().hex}"
    port = int(server.rpartition(":")[2])
    password = Credentials(Home(HOME, ROOT)).password("postgres")
    with psycopg.connect(superuser_conninfo(port, password), autocommit=True) as superuser:
        create = sql.SQL("CREATE DATABASE {} OWNER {}")
        superuser.execute(create.format(sql.Identifier(fresh), sql.Identifier(OWNER)))
        yield f"{server}/{fresh}"
        superuser.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(fresh)))
    assert name == "sluice"


@pytest.fixture
def alembic(empty_database: str) -> Alembic:
    """Run Alembic as an operator would, against the empty database."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT,
            env=os.environ | {"SLUICE_DATABASE_OWNER_URL": empty_database},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def tables(url: str) -> set[str]:
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {row[0] for row in rows}


def test_the_migrations_make_from_nothing_what_the_models_say(alembic: Alembic, empty_database: str) -> None:
    upgraded = alembic("upgrade", "head")
    checked = alembic("check")

    assert upgraded.returncode == 0, upgraded.stderr
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {"tenants", "documents", "chunks", "jobs", "outbox", "citations"} <= tables(empty_database)


def test_the_migrations_can_be_taken_back_and_made_again(alembic: Alembic, empty_database: str) -> None:
    for arguments in (("upgrade", "head"), ("downgrade", "base")):
        done = alembic(*arguments)
        assert done.returncode == 0, done.stderr
    assert tables(empty_database) == {"alembic_version"}

    again = alembic("upgrade", "head")

    assert again.returncode == 0, again.stderr
    assert alembic("check").returncode == 0


def test_many_may_bring_the_schema_up_to_date_at_once(alembic: Alembic, empty_database: str) -> None:
    with ThreadPoolExecutor(3) as crowd:
        done = list(crowd.map(lambda _: alembic("upgrade", "head"), range(3)))

    assert [run.returncode for run in done] == [0, 0, 0], [run.stderr for run in done]
    assert "chunks" in tables(empty_database)


def test_without_the_owner_s_url_the_migrations_say_which_variable_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}

    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 78
    assert "SLUICE_DATABASE_OWNER_URL" in done.stderr
    assert "Traceback" not in done.stderr
