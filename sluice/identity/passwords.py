"""Passwords, hashed with argon2id (RFC 9106, its second recommended profile: 64 MiB, 3 passes)."""

from __future__ import annotations

from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
# Each verification holds 64 MiB: a burst of sign-ins must not exhaust the process.
_at_once = BoundedSemaphore(2)
# Verified against when the user does not exist, so that both cases take the same time.
_NOBODY = _hasher.hash("nobody has this password")


def hash_password(password: str) -> str:
    """The encoded argon2id hash, with its salt and parameters."""
    return _hasher.hash(password)


def password_matches(password: str, password_hash: str | None) -> bool:
    """Whether the password is the one that was hashed; `None` (no such user) takes as long and says no."""
    with _at_once:
        try:
            return _hasher.verify(password_hash or _NOBODY, password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False
