"""Ids: ordered by the time of their making."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sluice.ids import first_id_of, new_id


def test_the_first_id_of_a_moment_parts_what_was_made_before_from_what_was_made_after() -> None:
    made = new_id()
    now = datetime.now(UTC)

    assert first_id_of(now - timedelta(minutes=1)) < made < first_id_of(now + timedelta(minutes=1))


def test_the_first_id_of_a_moment_is_a_uuid_of_version_7() -> None:
    first = first_id_of(datetime.now(UTC))

    assert (first.version, first.variant) == (7, "specified in RFC 4122")
