"""Access tokens: what is signed is what is read, and nothing else is accepted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sluice.environment import SettingsError
from sluice.errors import NotAuthenticated
from sluice.identity.roles import Role
from sluice.identity.tokens import Caller, TokenSigner
from sluice.settings import AuthSettings

CALLER = Caller(uuid4(), uuid4(), Role.EDITOR)


def pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def signer(key: Ed25519PrivateKey | None = None, **settings: Any) -> TokenSigner:
    return TokenSigner(AuthSettings(private_key=pem(key or Ed25519PrivateKey.generate()), **settings))


def test_a_token_names_its_caller() -> None:
    ours = signer()

    assert ours.verify(ours.sign(CALLER)) == CALLER


def test_a_token_says_what_it_is_who_made_it_with_which_key_and_until_when() -> None:
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    ours = signer(token_minutes=15)

    token = ours.sign(CALLER, now)

    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    assert header["kid"]
    assert (claims["iss"], claims["aud"]) == ("sluice", "sluice-api")
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert claims["iat"] == claims["nbf"] == int(now.timestamp())


def test_two_tokens_are_never_the_same() -> None:
    ours = signer()
    now = datetime.now(UTC)

    assert ours.sign(CALLER, now) != ours.sign(CALLER, now)


def test_a_token_ends_with_its_lifetime() -> None:
    ours = signer(token_minutes=15)
    assert ours.lifetime == timedelta(minutes=15)

    with pytest.raises(NotAuthenticated) as expired:
        ours.verify(ours.sign(CALLER, datetime.now(UTC) - timedelta(minutes=16)))

    assert expired.value.code == "token_expired"
    assert ours.verify(ours.sign(CALLER, datetime.now(UTC) - timedelta(minutes=14))) == CALLER


def test_a_token_of_another_key_or_another_installation_is_not_accepted() -> None:
    key = Ed25519PrivateKey.generate()
    ours = signer(key)

    for other in (signer(), signer(key, issuer="somewhere-else")):
        with pytest.raises(NotAuthenticated) as refused:
            ours.verify(other.sign(CALLER))
        assert refused.value.code == "token_invalid"


@pytest.mark.parametrize("missing", ["exp", "iat", "sub", "tid", "role", "aud", "iss"])
def test_a_token_without_one_of_its_claims_is_not_accepted(missing: str) -> None:
    key = Ed25519PrivateKey.generate()
    ours = signer(key)
    claims = jwt.decode(ours.sign(CALLER), options={"verify_signature": False})
    del claims[missing]

    with pytest.raises(NotAuthenticated) as refused:
        ours.verify(jwt.encode(claims, key, "EdDSA", headers={"typ": "at+jwt"}))

    assert refused.value.code == "token_invalid"


@pytest.mark.parametrize("nonsense", ["", ".", "a.b.c", "Bearer", "\u0000", "🦓", "e30.e30.e30", "x" * 10_000])
def test_nonsense_is_not_accepted(nonsense: str) -> None:
    with pytest.raises(NotAuthenticated) as refused:
        signer().verify(nonsense)

    assert refused.value.code == "token_invalid"


@pytest.mark.parametrize("key", ["", "not a key", pem(generate_private_key(65537, 2048))], ids=["none", "text", "RSA"])
def test_a_key_of_another_kind_keeps_the_process_from_starting(key: str) -> None:
    with pytest.raises(SettingsError, match="openssl genpkey -algorithm ed25519"):
        TokenSigner(AuthSettings(private_key=key))
