"""Readiness and the schema: not before it is there, not held up by a later one."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from sluice.db.schema import REVISIONS, require_current
from sluice.errors import TemporarilyUnavailable
from tests.e2e.running import ROOT
from tests.integration.test_migrations import Alembic, alembic, empty_database

__all__ = ["alembic", "empty_database"]


def test_the_revisions_that_the_code_knows_are_the_migrations_oldest_first() -> None:
    scripts = ScriptDirectory.from_config(Config(toml_file=str(ROOT / "pyproject.toml")))

    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS


def checked(url: str) -> None:
    engine = create_engine(url)
    try:
        with Session(engine) as session:
            require_current(session)
    finally:
        engine.dispose()


def test_an_empty_database_is_behind(empty_database: str) -> None:
    with pytest.raises(TemporarilyUnavailable, match="Run the migrations"):
        checked(empty_database)


def test_an_older_schema_is_behind_and_the_current_one_is_not(alembic: Alembic, empty_database: str) -> None:
    assert alembic("upgrade", REVISIONS[-2]).returncode == 0
    with pytest.raises(TemporarilyUnavailable, match=f"revision {REVISIONS[-2]}; this version needs {REVISIONS[-1]}"):
        checked(empty_database)

    assert alembic("upgrade", "head").returncode == 0

    checked(empty_database)


def test_preparing_an_older_version_leaves_a_later_schema_as_it_is(
    alembic: Alembic, empty_database: str, variables: dict[str, str]
) -> None:
    assert alembic("upgrade", "head").returncode == 0
    with psycopg.connect(empty_database.replace("postgresql+psycopg", "postgresql")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    database = empty_database.rpartition("/")[2]
    urls = {
        name: variables[name].rpartition("/")[0] + f"/{database}"
        for name in ("SLUICE_DATABASE_URL", "SLUICE_DATABASE_SYSTEM_URL", "SLUICE_DATABASE_OWNER_URL")
    }

    done = subprocess.run(
        [sys.executable, "-m", "services.api.prepare"],
        cwd=ROOT,
        env=os.environ | variables | urls | {"SLUICE_ADMIN_PASSWORD": "a long password"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "prepare.schema_is_newer" in done.stdout + done.stderr
    with psycopg.connect(empty_database.replace("postgresql+psycopg", "postgresql")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_later_schema_does_not_hold_up_older_code(alembic: Alembic, empty_database: str) -> None:
    assert alembic("upgrade", "head").returncode == 0
    with psycopg.connect(empty_database.replace("postgresql+psycopg", "postgresql")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    checked(empty_database)
