"""What every table shares: names of constraints, time stamps, and the tenant that owns each row."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final
from uuid import UUID

from sqlalchemy import DateTime, Enum, ForeignKey, MetaData, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sluice.ids import new_id

# Stable names, so that a migration can drop what another one made.
_NAMES: Final = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

# The setting that names the tenant of a transaction; row-level security and the default of `tenant_id` read it.
TENANT_SETTING: Final = "app.tenant_id"
CURRENT_TENANT: Final = f"NULLIF(current_setting('{TENANT_SETTING}', true), '')::uuid"


def _values(kind: type[StrEnum]) -> list[str]:
    return [member.value for member in kind]


class Base(DeclarativeBase):
    """The one registry of tables."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar = {
        datetime: DateTime(timezone=True),
        # Stored by value, as text: a new member needs no migration, and psql shows what the code says.
        StrEnum: Enum(StrEnum, native_enum=False, length=20, values_callable=_values),
    }


class Identified:
    """A row with a time-ordered id of its own."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id, sort_order=-10)


class Timestamped:
    """A row that knows when it was made."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=90)


class TenantOwned:
    """A row that belongs to one tenant: PostgreSQL stamps it, filters it and refuses any other."""

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), server_default=text(CURRENT_TENANT), index=True, sort_order=-9
    )
