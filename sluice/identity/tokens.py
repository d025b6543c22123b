"""Access tokens: short-lived JWTs (RFC 9068, `typ: at+jwt`) signed with Ed25519 (RFC 8037)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sluice.environment import SettingsError
from sluice.errors import NotAuthenticated
from sluice.identity.roles import Role
from sluice.settings import AuthSettings

_AUDIENCE: Final = "sluice-api"
_TYPE: Final = "at+jwt"


@dataclass(frozen=True)
class Caller:
    """Who asks, for which tenant, with which role."""

    user_id: UUID
    tenant_id: UUID
    role: Role


class TokenSigner:
    """Makes access tokens and checks them."""

    def __init__(self, settings: AuthSettings) -> None:
        self._key = _load(settings.private_key.get_secret_value())
        self._public_key = self._key.public_key()
        raw = self._public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._kid = hashlib.sha256(raw).hexdigest()[:16]
        self._issuer = settings.issuer
        self.lifetime = timedelta(minutes=settings.token_minutes)

    def sign(self, caller: Caller, now: datetime | None = None) -> str:
        """A token that proves, for `lifetime`, who the caller is."""
        issued = now or datetime.now(UTC)
        claims = {
            "iss": self._issuer,
            "aud": _AUDIENCE,
            "sub": str(caller.user_id),
            "tid": str(caller.tenant_id),
            "role": caller.role.value,
            "jti": uuid4().hex,
            "iat": issued,
            "nbf": issued,
            "exp": issued + self.lifetime,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid, "typ": _TYPE})

    def verify(self, token: str) -> Caller:
        """The caller that the token names; `NotAuthenticated` when it is forged, expired or for another use."""
        try:
            if jwt.get_unverified_header(token).get("typ") != _TYPE:
                raise NotAuthenticated("This is not an access token.", code="token_invalid")
            claims = jwt.decode(
                token,
                self._public_key,
                algorithms=["EdDSA"],
                audience=_AUDIENCE,
                issuer=self._issuer,
                options={"require": ["exp", "iat", "sub", "tid", "role"]},
            )
            return Caller(UUID(claims["sub"]), UUID(claims["tid"]), Role(claims["role"]))
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("The access token has expired: sign in again.", code="token_expired") from None
        except (jwt.InvalidTokenError, ValueError):
            raise NotAuthenticated("The access token is not valid: sign in again.", code="token_invalid") from None


def _load(pem: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            "SLUICE_AUTH_PRIVATE_KEY is not an Ed25519 private key in PEM form: make one with "
            "`openssl genpkey -algorithm ed25519`."
        )
    return key
