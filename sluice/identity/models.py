"""Tenants and their users."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, text
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
