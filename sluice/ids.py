"""Identifiers: time-ordered for rows, derived for everything that must come out the same when it is computed again."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid5

import uuid_utils.compat

# Fixed for ever: a change would give every chunk and point a new identity.
_NAMESPACE = UUID("6f1d5b0e-3f0a-5c7e-9d55-5c1f0f2a7b11")


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): unique, and ordered by the time of its making."""
    return uuid_utils.compat.uuid7()


def first_id_of(moment: datetime) -> UUID:
    """The least id that could have been made at this moment: every older one sorts before it."""
    version_and_variant = 7 << 76 | 2 << 62
    return UUID(int=int(moment.timestamp() * 1000) << 80 | version_and_variant)


def derived_id(*parts: object) -> UUID:
    """The UUIDv5 of these parts, in this order."""
    return uuid5(_NAMESPACE, "\x1f".join(str(part) for part in parts))
