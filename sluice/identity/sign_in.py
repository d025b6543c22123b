"""Sign-in: from an e-mail address and a password to a caller."""

from __future__ import annotations

from sqlalchemy import func, select

from sluice.db.unscoped import UnscopedSessions, unscoped_session
from sluice.errors import NotAuthenticated
from sluice.identity.models import User
from sluice.identity.passwords import password_matches
from sluice.identity.tokens import Caller


def sign_in(sessions: UnscopedSessions, email: str, password: str) -> Caller:
    """The caller with this address and password; `NotAuthenticated` does not say which of the two was wrong."""
    with unscoped_session(sessions) as session:
        user = session.scalars(
            select(User).where(func.lower(User.email) == email.strip().lower(), User.disabled_at.is_(None))
        ).one_or_none()
        session.expunge_all()
    # Outside the transaction: the hash takes tens of milliseconds and needs no connection.
    if not password_matches(password, user.password_hash if user else None) or user is None:
        raise NotAuthenticated("The e-mail address or the password is wrong.", code="wrong_credentials")
    return Caller(user.id, user.tenant_id, user.role)
