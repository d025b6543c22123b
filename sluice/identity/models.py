"""Tenants and their users."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, LargeBinary, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from sluice.db.base import Base, Identified, TenantOwned, Timestamped
from sluice.identity.roles import Role


class Tenant(Identified, Timestamped, Base):
    """An organisation whose documents nobody else sees."""

    __tablename__ = "tenants"

    name: Mapped[str] = mapped_column(unique=True)


class User(Identified, TenantOwned, Timestamped, Base):
    """A person of one tenant. E-mail addresses are unique over all tenants, whatever their case."""

    __tablename__ = "users"

    email: Mapped[str]
    password_hash: Mapped[str]
    role: Mapped[Role]
    disabled_at: Mapped[datetime | None]

    __table_args__ = (Index("uq_users_email", text("lower(email)"), unique=True),)


class AuditEntry(Identified, TenantOwned, Base):
    """Who did what: added, never changed. Each entry carries the digest of the one before it."""

    __tablename__ = "audit"

    # 1, 2, 3, ... within a tenant: a gap is an entry that somebody removed.
    number: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime]
    # None: the platform itself.
    actor_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(String(60))
    target_kind: Mapped[str] = mapped_column(String(40))
    target_id: Mapped[UUID | None]
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")
    request_id: Mapped[str | None] = mapped_column(String(200))
    previous: Mapped[bytes] = mapped_column(LargeBinary(32))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))

    __table_args__ = (UniqueConstraint("tenant_id", "number"),)


class IdempotencyKey(Identified, TenantOwned, Timestamped, Base):
    """A request that its sender has given a name, so that sending it again does nothing again; and its answer."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[UUID]
    key: Mapped[str] = mapped_column(String(255))
    # SHA-256 of what was asked for: another request must not have the same name.
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32))
    # Counts those who have begun to answer it. Only the last one may write the answer down.
    attempt: Mapped[int] = mapped_column(default=1, server_default="1")
    begun_at: Mapped[datetime] = mapped_column(server_default=func.now())
    status: Mapped[int | None]
    headers: Mapped[dict[str, str]] = mapped_column(JSONB, default=dict, server_default="{}")
    body: Mapped[str | None]

    __table_args__ = (UniqueConstraint("user_id", "key"), Index("ix_idempotency_keys_created", "created_at"))
