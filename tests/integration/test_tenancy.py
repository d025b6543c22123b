"""Tenants are kept apart twice: by the session that filters and stamps, and by PostgreSQL when a query forgets."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError

from sluice.db.base import Base
from sluice.db.session import create_sessions, tenant_session
from sluice.db.unscoped import unscoped_session
from sluice.documents.models import Document, Source
from sluice.identity.models import Tenant
from sluice.identity.roles import Role
from sluice.jobs.models import Job
from sluice.jobs.state import JobState
from sluice.settings import DatabaseSettings
from tests.e2e.running import Join, Stores

SYSTEM_TABLES: Final = {
    "tenants", "users", "jobs", "job_steps", "job_attempts", "outbox", "dead_letters", "idempotency_keys",
}  # fmt: skip


@pytest.fixture(scope="module")
def tenants(join: Join) -> tuple[UUID, UUID]:
    """Two tenants."""
    return tuple(join(f"Tenant {uuid4().hex}", Role.ADMIN).tenant_id for _ in range(2))  # type: ignore[return-value] # two


@pytest.fixture
def hers(stores: Stores, tenants: tuple[UUID, UUID]) -> UUID:
    """A source of the second tenant."""
    with tenant_session(stores.sessions, tenants[1]) as session:
        source = Source(name=f"Hers {uuid4().hex}")
        session.add(source)
        session.flush()
        return source.id


@pytest.fixture(scope="module")
def app_url(variables: dict[str, str]) -> str:
    return variables["SLUICE_DATABASE_URL"].replace("postgresql+psycopg", "postgresql")


def tenant_tables() -> list[str]:
    return sorted(table.name for table in Base.metadata.tables.values() if "tenant_id" in table.c)


def test_every_table_of_a_tenant_is_under_row_level_security_that_binds_its_owner_too(stores: Stores) -> None:
    with stores.unscoped() as session:
        rows = session.execute(
            text("SELECT relname, relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relkind = 'r'")
        ).all()

    secured = {row[0] for row in rows if row[1]}
    assert {*tenant_tables(), "tenants"} <= secured
    # A table that nobody thought about must not slip in; `workers` serve all tenants and say nothing of any.
    everything = {name for name, _ in rows if not name.startswith(("pg_", "sql_"))}
    assert everything - secured == {"alembic_version", "workers"}


def test_the_roles_of_the_services_own_nothing_and_cannot_bypass_anything(stores: Stores) -> None:
    with stores.unscoped() as session:
        roles = session.execute(
            text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'sluice%' AND (rolsuper OR rolbypassrls)")
        ).all()
        owners = session.scalars(text("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")).all()

    assert roles == []
    assert owners == ["sluice_owner"]


@pytest.mark.parametrize("table", tenant_tables())
def test_without_a_tenant_no_row_is_seen(app_url: str, table: str, hers: UUID) -> None:
    with psycopg.connect(app_url) as connection:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        assert connection.execute(query).fetchone() == (0,)


def test_without_a_tenant_nothing_can_be_written(app_url: str) -> None:
    with (
        psycopg.connect(app_url) as connection,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.NotNullViolation)),
    ):
        connection.execute("INSERT INTO sources (id, name) VALUES (gen_random_uuid(), 'nobody')")


def test_plain_sql_of_one_tenant_can_neither_see_nor_change_nor_remove_nor_add_another_s_row(
    app_url: str, tenants: tuple[UUID, UUID], hers: UUID
) -> None:
    with psycopg.connect(app_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenants[0])])

        assert connection.execute("SELECT name FROM sources WHERE id = %s", [hers]).fetchall() == []
        assert connection.execute("UPDATE sources SET name = 'mine' WHERE id = %s", [hers]).rowcount == 0
        assert connection.execute("DELETE FROM sources WHERE id = %s", [hers]).rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO sources (id, tenant_id, name) VALUES (gen_random_uuid(), %s, 'smuggled')", [tenants[1]]
            )


def test_a_row_cannot_be_moved_to_another_tenant(app_url: str, tenants: tuple[UUID, UUID], hers: UUID) -> None:
    with psycopg.connect(app_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenants[1])])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE sources SET tenant_id = %s WHERE id = %s", [tenants[0], hers])


def test_a_session_stamps_what_it_adds_and_sees_what_it_stamped(stores: Stores, tenants: tuple[UUID, UUID]) -> None:
    with tenant_session(stores.sessions, tenants[0]) as session:
        source = Source(name=f"Mine {uuid4().hex}")
        session.add(source)
        session.flush()

        assert session.scalars(select(Source.tenant_id).where(Source.id == source.id)).one() == tenants[0]


def test_a_session_filters_statements_that_name_no_tenant(
    stores: Stores, tenants: tuple[UUID, UUID], hers: UUID
) -> None:
    with tenant_session(stores.sessions, tenants[0]) as session:
        assert session.scalars(select(Source).where(Source.id == hers)).all() == []
        assert session.get(Source, hers) is None
        assert session.execute(update(Source).where(Source.id == hers).values(name="mine")).rowcount == 0  # type: ignore[attr-defined] # of an UPDATE
        assert session.execute(delete(Source).where(Source.id == hers)).rowcount == 0  # type: ignore[attr-defined] # of a DELETE
        joined = select(func.count()).select_from(Source).outerjoin(Document).where(Source.id == hers)
        assert session.scalar(joined) == 0


def test_the_session_filters_by_itself_where_row_level_security_does_not(
    stores: Stores, tenants: tuple[UUID, UUID]
) -> None:
    # The role that sees all tenants' jobs: only the session's own filter is left.
    marked = f"filter-{uuid4().hex[:8]}"
    for tenant_id in tenants:
        with tenant_session(stores.sessions, tenant_id) as session:
            session.add(Job(kind=marked, state=JobState.READY))
    all_seeing = stores.unscoped.kw["bind"]

    with stores.sessions(bind=all_seeing, info={"tenant_id": tenants[0]}) as session:
        found = session.scalars(select(Job).where(Job.kind == marked)).all()

    assert [job.tenant_id for job in found] == [tenants[0]]


def test_a_session_without_a_tenant_reads_nothing_and_says_so(stores: Stores) -> None:
    with stores.sessions() as session, pytest.raises(KeyError, match="tenant_id"):
        session.scalars(select(Source)).all()


def test_a_row_with_another_tenant_s_id_is_refused(stores: Stores, tenants: tuple[UUID, UUID]) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"), tenant_session(stores.sessions, tenants[0]) as s:
        s.add(Source(name="smuggled", tenant_id=tenants[1]))


def test_a_pooled_connection_forgets_its_tenant(variables: dict[str, str], tenants: tuple[UUID, UUID]) -> None:
    sessions = create_sessions(DatabaseSettings(url=variables["SLUICE_DATABASE_URL"], pool_size=1))
    pool = sessions.kw["bind"]
    with tenant_session(sessions, tenants[0]) as session:
        backend = session.scalar(select(func.pg_backend_pid()))
        assert session.scalar(select(func.count()).select_from(Tenant)) == 1

    with pool.connect() as connection:
        assert connection.scalar(select(func.pg_backend_pid())) == backend
        assert connection.scalar(select(func.current_setting("app.tenant_id", True))) == ""
        assert connection.scalar(select(func.count()).select_from(Tenant.__table__)) == 0
    pool.dispose()


def test_the_role_that_sees_all_tenants_sees_their_people_and_jobs_and_no_document(stores: Stores, hers: UUID) -> None:
    for table in [*tenant_tables(), "tenants"]:
        with unscoped_session(stores.unscoped) as session:
            query = select(func.count()).select_from(Base.metadata.tables[table])
            if table in SYSTEM_TABLES:
                assert session.execute(query).scalar_one() >= 0
            else:
                with pytest.raises(DBAPIError, match="permission denied"):
                    session.execute(query)


def test_the_role_that_sees_all_tenants_can_remove_neither_tenants_nor_people(stores: Stores) -> None:
    for table in ("tenants", "users"):
        with pytest.raises(DBAPIError, match="permission denied"), unscoped_session(stores.unscoped) as session:
            session.execute(delete(Base.metadata.tables[table]))


def test_a_tenant_sees_itself_and_no_other_tenant(stores: Stores, tenants: tuple[UUID, UUID]) -> None:
    with tenant_session(stores.sessions, tenants[0]) as session:
        assert session.scalars(select(Tenant.id)).all() == [tenants[0]]
