"""Roles, from least to most. A role may do whatever the ones before it may."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a user may do."""

    VIEWER = "viewer"  # search and ask
    EDITOR = "editor"  # and upload and delete documents, make sources
    TENANT_ADMIN = "tenant_admin"  # and look after the tenant's users
    ADMIN = "admin"  # and run the platform

    def includes(self, other: Role) -> bool:
        """Whether whoever holds this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)
