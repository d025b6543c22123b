"""Passwords and keys: made at the first start, kept in files that only their owner reads."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from infra.embedded.home import Home, write_private

ADMIN_PASSWORD = "admin_password"  # noqa: S105 - the name of a file
_AUTH_KEY = "auth_private_key.pem"


class Credentials:
    """The secrets of one platform, each made when it is first asked for."""

    def __init__(self, home: Home) -> None:
        self._folder = home.secrets

    def password(self, name: str) -> str:
        """The password of this name; letters and digits, so that it may stand in any URL or file."""
        return self._kept(name, lambda: secrets.token_hex(16)).read_text().strip()

    def admin_password_file(self) -> Path:
        """The file with the first administrator's password."""
        # Short enough to type, long enough not to be guessed: 72 bits.
        return self._kept(ADMIN_PASSWORD, lambda: secrets.token_urlsafe(9))

    def auth_key_file(self) -> Path:
        """The file with the Ed25519 key that signs access tokens (PEM, PKCS 8)."""
        return self._kept(_AUTH_KEY, _new_signing_key)

    def _kept(self, name: str, make: Callable[[], str]) -> Path:
        file = self._folder / name
        if not file.exists():
            write_private(file, make().strip() + "\n")
        return file


def _new_signing_key() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
