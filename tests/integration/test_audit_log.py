"""The audit log: in the transaction of what it tells of, without gaps, and unable to hide that it was changed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from infra.embedded.credentials import Credentials
from infra.embedded.home import Home
from infra.embedded.platform import Platform
from infra.embedded.postgres import superuser_conninfo
from sluice.identity import audit
from sluice.identity.audit import Verdict
from sluice.identity.models import AuditEntry
from tests.e2e.running import HOME, ROOT
from tests.integration.job_bench import Bench

SOMEBODY: Final = uuid4()


@pytest.fixture
def superuser(platform: Platform, variables: dict[str, str]) -> Iterator[psycopg.Connection]:
    """Whom neither privileges nor row-level security stop."""
    url = make_url(variables["SLUICE_DATABASE_OWNER_URL"])
    assert url.port is not None
    conninfo = superuser_conninfo(url.port, Credentials(Home(HOME, ROOT)).password("postgres"))
    with psycopg.connect(f"{conninfo} dbname={url.database}", autocommit=True) as connection:
        yield connection


def note(bench: Bench, action: str = "job.cancel", **detail: Any) -> UUID:
    target = uuid4()
    with bench.session() as session:
        audit.record(session, action, "job", target, by=SOMEBODY, **detail)
    return target


def verdict(bench: Bench) -> Verdict:
    with bench.session() as session:
        return audit.verify(session)


def numbers(bench: Bench) -> list[int]:
    with bench.session() as session:
        return [found.entry.number for found in audit.page(session, limit=1000)]


def test_entries_say_who_did_what_to_what_and_are_numbered(bench: Bench) -> None:
    first = note(bench, reason="привет", at=uuid4(), share=0.5)
    note(bench, "job.retry")

    with bench.session() as session:
        newest, oldest = audit.page(session, limit=10)
        about = audit.page(session, target_id=first, limit=10)
        older = audit.page(session, before=newest.entry.id, limit=10)
        assert (oldest.entry.number, newest.entry.number) == (1, 2)
        assert (oldest.entry.actor_id, oldest.entry.target_id, oldest.entry.action) == (SOMEBODY, first, "job.cancel")
        assert oldest.entry.detail["reason"] == "привет"
        assert [found.entry.number for found in about] == [found.entry.number for found in older] == [1]
        assert audit.verify(session) == Verdict(2, newest.entry.digest.hex())


def test_an_entry_is_there_only_if_what_it_tells_of_was_done(bench: Bench) -> None:
    note(bench)
    with bench.session() as session:
        audit.record(session, "job.cancel", "job", by=SOMEBODY)
        session.rollback()
    note(bench)

    assert numbers(bench) == [2, 1]
    assert verdict(bench).broken_at is None


def test_entries_written_at_once_make_one_chain(bench: Bench) -> None:
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(lambda _: note(bench), range(40)))

    assert numbers(bench) == list(range(40, 0, -1))
    assert verdict(bench).entries == 40
    assert verdict(bench).broken_at is None


def test_an_empty_log_is_whole(bench: Bench) -> None:
    assert verdict(bench) == Verdict(0, bytes(32).hex())


# What is done to the entries of a tenant, `{}`; how many still fit, and the first that does not.
TAMPERED: Final = {
    "another actor": ("UPDATE audit SET actor_id = gen_random_uuid() WHERE {} AND number = 2", 1, 2),
    "no actor": ("UPDATE audit SET actor_id = NULL WHERE {} AND number = 2", 1, 2),
    "another detail": ("UPDATE audit SET detail = '{{\"n\": 2}}' WHERE {} AND number = 2", 1, 2),
    "a later time": ("UPDATE audit SET at = at + interval '1 microsecond' WHERE {} AND number = 1", 0, 1),
    "a digest before it": ("UPDATE audit SET previous = digest WHERE {} AND number = 3", 2, 3),
    "removed": ("DELETE FROM audit WHERE {} AND number = 2", 1, 3),
    "the first one removed": ("DELETE FROM audit WHERE {} AND number = 1", 0, 2),
    "removed and numbered anew": (
        "DELETE FROM audit WHERE {0} AND number = 2; UPDATE audit SET number = 2 WHERE {0} AND number = 3",
        1,
        2,
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_whoever_changes_or_removes_an_entry_is_found_out(
    bench: Bench, superuser: psycopg.Connection, how: str
) -> None:
    for n in range(3):
        note(bench, n=n)
    assert verdict(bench).broken_at is None
    statement, fitting, broken_at = TAMPERED[how]

    superuser.execute(statement.format(f"tenant_id = '{bench.tenant_id}'").encode())

    found = verdict(bench)
    assert (found.entries, found.broken_at) == (fitting, broken_at)
    assert found.why


def test_a_log_cut_off_at_its_end_is_told_by_the_digest_that_was_kept(
    bench: Bench, superuser: psycopg.Connection
) -> None:
    for n in range(3):
        note(bench, n=n)
    kept = verdict(bench)

    superuser.execute("DELETE FROM audit WHERE tenant_id = %s AND number = 3", (bench.tenant_id,))

    assert verdict(bench).broken_at is None
    assert verdict(bench).head != kept.head


@pytest.mark.parametrize(
    "statement",
    [update(AuditEntry).values(action="nothing"), delete(AuditEntry), text("TRUNCATE audit")],
    ids=["update", "delete", "truncate"],
)
def test_the_services_cannot_change_or_remove_entries(bench: Bench, statement: Any) -> None:
    note(bench)

    with bench.session() as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(statement)

    assert numbers(bench) == [1]


def test_each_tenant_has_a_chain_of_its_own(bench: Bench, request: pytest.FixtureRequest) -> None:
    note(bench)
    other = Bench(bench.stores, request.getfixturevalue("stranger").tenant_id, bench.queue)
    before = numbers(other)
    note(other)

    assert numbers(bench) == [1]
    assert numbers(other)[1:] == before
