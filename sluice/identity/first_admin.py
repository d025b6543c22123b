"""The first tenant and its administrator: `python -m sluice.identity.first_admin`, safe to run again."""

from __future__ import annotations

import argparse
from pathlib import Path

from sqlalchemy import func, select

from sluice.db.unscoped import UnscopedSessions, create_unscoped_sessions, unscoped_session
from sluice.environment import SettingsError, exit_with_reason
from sluice.identity.models import Tenant, User
from sluice.identity.passwords import hash_password
from sluice.identity.roles import Role
from sluice.settings import DatabaseSettings


def ensure_administrator(sessions: UnscopedSessions, *, tenant: str, email: str, password: str) -> bool:
    """Make the tenant and its administrator unless they exist; whether the administrator is new."""
    with unscoped_session(sessions) as session:
        owner = session.scalars(select(Tenant).where(Tenant.name == tenant)).one_or_none()
        if owner is None:
            owner = Tenant(name=tenant)
            session.add(owner)
            session.flush()
        if session.scalar(select(User.id).where(func.lower(User.email) == email.lower())) is not None:
            return False
        session.add(User(tenant_id=owner.id, email=email, password_hash=hash_password(password), role=Role.ADMIN))
        return True


def main() -> None:
    """Read who it shall be from the command line and the password from a file, never from an argument."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tenant", required=True)
    arguments.add_argument("--email", required=True)
    arguments.add_argument("--password-file", required=True, type=Path)
    given = arguments.parse_args()
    try:
        sessions = create_unscoped_sessions(DatabaseSettings.from_environment(), pool_size=1)
    except SettingsError as error:
        exit_with_reason(error)
    password = given.password_file.read_text(encoding="utf-8").strip()
    made = ensure_administrator(sessions, tenant=given.tenant, email=given.email, password=password)
    print(f"{given.email} {'is now' if made else 'was already'} an administrator of {given.tenant}.")


if __name__ == "__main__":
    main()
