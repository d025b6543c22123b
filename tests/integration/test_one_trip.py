"""One statement in one round trip: typed values, one transaction, and what is left when something comes in between."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from sluice.db.base import TENANT_SETTING
from sluice.db.one_trip import in_one_trip
from sluice.db.session import Sessions, create_sessions, is_outage, tenant_session
from sluice.settings import DatabaseSettings
from tests.integration.job_bench import Bench

_INSERT = "INSERT INTO sources (id, tenant_id, name) VALUES (%(id)s, %(tenant)s, %(name)s) RETURNING id, name"
_COUNT = "SELECT count(*) AS number FROM sources"


@pytest.fixture
def sessions(variables: dict[str, str]) -> Iterator[Sessions]:
    """One connection, so that the second trip is over the connection of the first."""
    sessions = create_sessions(DatabaseSettings(url=variables["SLUICE_DATABASE_URL"], pool_size=1))
    yield sessions
    sessions.kw["bind"].dispose()


def test_values_come_back_as_pythons_types(sessions: Sessions, bench: Bench) -> None:
    statement = """
        SELECT %(text)s::text AS text, %(number)s::integer AS number, %(part)s::double precision AS part,
               %(id)s::uuid AS id, %(truth)s::boolean AS truth, %(nothing)s::integer AS nothing,
               '{"a": [1, null]}'::jsonb AS document
        """
    values = {"text": "Ночь % 'x'", "number": 7, "part": 0.5, "id": uuid4(), "truth": True, "nothing": None}

    row = in_one_trip(sessions, bench.tenant_id, statement, values)

    assert row._asdict() == {**values, "document": {"a": [1, None]}}


def test_no_row_is_none(sessions: Sessions, bench: Bench) -> None:
    assert in_one_trip(sessions, bench.tenant_id, "SELECT 1 AS one WHERE false", {}) is None


def test_what_it_wrote_is_committed(sessions: Sessions, bench: Bench) -> None:
    values = {"id": uuid4(), "tenant": bench.tenant_id, "name": uuid4().hex}
    for number in range(1, 4):
        in_one_trip(sessions, bench.tenant_id, _INSERT, values | {"id": uuid4(), "name": uuid4().hex})
        assert _sources(sessions, bench.tenant_id) == number


def test_it_sees_and_writes_only_rows_of_its_tenant(sessions: Sessions, bench: Bench) -> None:
    stranger = uuid4()
    in_one_trip(sessions, bench.tenant_id, _INSERT, {"id": uuid4(), "tenant": bench.tenant_id, "name": "ours"})

    assert in_one_trip(sessions, stranger, _COUNT, {}).number == 0
    with pytest.raises(DBAPIError, match="row-level security"):
        in_one_trip(sessions, stranger, _INSERT, {"id": uuid4(), "tenant": bench.tenant_id, "name": "theirs"})


def test_the_connection_forgets_the_tenant(sessions: Sessions, bench: Bench) -> None:
    in_one_trip(sessions, bench.tenant_id, _COUNT, {})
    with sessions.kw["bind"].connect() as connection:
        assert not connection.scalar(text(f"SELECT current_setting('{TENANT_SETTING}', true)"))


def test_after_an_error_nothing_is_changed_and_the_connection_goes_on(sessions: Sessions, bench: Bench) -> None:
    values = {"id": uuid4(), "tenant": bench.tenant_id, "name": "first"}
    in_one_trip(sessions, bench.tenant_id, _INSERT, values)
    before = _backend(sessions)
    # The first insert would be good; the second has the id of the one that is there.
    both = (
        "WITH good AS (INSERT INTO sources (id, tenant_id, name) VALUES (%(new)s, %(tenant)s, 'good')) "
        "INSERT INTO sources (id, tenant_id, name) VALUES (%(id)s, %(tenant)s, %(name)s)"
    )

    with pytest.raises(IntegrityError) as raised:
        in_one_trip(sessions, bench.tenant_id, both, values | {"new": uuid4(), "name": "second"})

    assert not is_outage(raised.value)
    assert _sources(sessions, bench.tenant_id) == 1
    assert _backend(sessions) == before


def test_an_error_that_comes_with_the_commit_is_one_of_sqlalchemys(variables: dict[str, str], bench: Bench) -> None:
    owner = create_sessions(DatabaseSettings(url=variables["SLUICE_DATABASE_OWNER_URL"], pool_size=1))
    table = f"once_{uuid4().hex}"
    with tenant_session(owner, bench.tenant_id) as session:
        session.execute(text(f"CREATE TABLE {table} (number integer UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
    try:
        with pytest.raises(IntegrityError):
            in_one_trip(owner, bench.tenant_id, f"INSERT INTO {table} VALUES (1), (1)", {})  # noqa: S608
        assert in_one_trip(owner, bench.tenant_id, f"SELECT count(*) AS number FROM {table}", {}).number == 0  # noqa: S608
    finally:
        with tenant_session(owner, bench.tenant_id) as session:
            session.execute(text(f"DROP TABLE {table}"))
        owner.kw["bind"].dispose()


def test_a_statement_that_postgresql_does_not_understand_is_no_outage(sessions: Sessions, bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(DBAPIError, match="syntax error") as raised:
            in_one_trip(sessions, bench.tenant_id, "SELEKT 1", {})
        assert not is_outage(raised.value)
    assert in_one_trip(sessions, bench.tenant_id, _COUNT, {}).number == 0


def test_psycopg_may_drop_prepared_statements_as_it_does_after_a_rollback(sessions: Sessions, bench: Bench) -> None:
    in_one_trip(sessions, bench.tenant_id, _COUNT, {})
    before = _backend(sessions)
    for _ in range(2):
        _roll_back(sessions, bench.tenant_id)
        assert _sources(sessions, bench.tenant_id) == 0
        assert in_one_trip(sessions, bench.tenant_id, _COUNT, {}).number == 0
        assert _backend(sessions) == before


def test_a_connection_that_is_cut_is_an_outage_and_the_next_is_a_new_one(sessions: Sessions, bench: Bench) -> None:
    in_one_trip(sessions, bench.tenant_id, _COUNT, {})
    before = _backend(sessions)

    with pytest.raises(OperationalError) as raised:
        in_one_trip(sessions, bench.tenant_id, "SELECT pg_terminate_backend(pg_backend_pid())", {})

    assert is_outage(raised.value)
    assert in_one_trip(sessions, bench.tenant_id, _COUNT, {}).number == 0
    assert _backend(sessions) != before


def test_a_trip_that_is_interrupted_gives_its_connection_up(sessions: Sessions, bench: Bench) -> None:
    before = _backend(sessions)

    with pytest.raises(_Interrupted), _interrupted_after(0.3):
        in_one_trip(sessions, bench.tenant_id, "SELECT pg_sleep(5)", {})

    assert in_one_trip(sessions, bench.tenant_id, _COUNT, {}).number == 0
    assert _backend(sessions) != before


class _Interrupted(Exception):
    pass


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _roll_back(sessions: Sessions, tenant_id: UUID) -> None:
    with sessions(info={"tenant_id": tenant_id}) as session:
        for number in range(10):
            # Often enough that psycopg prepares it.
            session.execute(text("SELECT CAST(:number AS integer)"), {"number": number})
        session.rollback()


def _sources(sessions: Sessions, tenant_id: UUID) -> int:
    with tenant_session(sessions, tenant_id) as session:
        return session.scalar(text(_COUNT)) or 0


def _backend(sessions: Sessions) -> int:
    with sessions.kw["bind"].connect() as connection:
        pid: int = connection.scalar(text("SELECT pg_backend_pid()"))
        return pid
