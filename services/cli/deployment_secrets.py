"""The passwords and keys of a deployment: which files there are, and what stands in each. Pure but for chance.

A secret that two parts share stands in a file of each one's own form. Such files always agree: where one of them
exists, the others are made from it.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from services.cli.exit_codes import CommandError, Exit

_LETTERS_AND_DIGITS: Final = string.ascii_letters + string.digits
# What stands for itself in a URL, in YAML and in every server's configuration.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True)
class SecretFile:
    """A file, how the secret stands in it, and where to find it again when people have edited the rest."""

    name: str
    template: str = "{secret}"
    pattern: str = r"(\S+)"

    def text(self, secret: str) -> str:
        """The file's content."""
        return self.template.format(secret=secret).strip() + "\n"

    def secret_in(self, text: str) -> str | None:
        """The secret that the content holds, if it is where it should be."""
        found = re.search(self.pattern, text, flags=re.MULTILINE)
        return found[1] if found else None


@dataclass(frozen=True)
class Secret:
    """Something that nobody may guess, and the files that hold it."""

    make: Callable[[], str]
    files: tuple[SecretFile, ...]


def password() -> str:
    """32 characters, digits and letters up to f: they may stand in any URL or file."""
    return secrets.token_hex(16)


def signing_key() -> str:
    """An Ed25519 private key: PEM, PKCS 8."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - see below
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415 - same
    except ImportError as error:
        # The extra `cli` alone does without it: only who sets up a deployment needs it.
        raise CommandError(
            "Making a signing key needs the package cryptography: pip install 'sluice[api,cli]', or use the api image.",
            Exit.FAILED,
        ) from error
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _key(length: int) -> str:
    return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length))


def _in_url(name: str, template: str) -> SecretFile:
    return SecretFile(name, template, pattern=r"://[^:@/]*:([^@/]+)@")


def _in_config(name: str, template: str, key: str) -> SecretFile:
    return SecretFile(name, template, pattern=rf"""^[ \t]*{key}[ \t:=]+["']?([^\s"']+)""")


SECRETS: Final = (
    Secret(
        password,
        (
            SecretFile("postgres_password"),
            _in_url("database_admin_url", "postgresql+psycopg://postgres:{secret}@postgres:5432/postgres"),
        ),
    ),
    Secret(password, (SecretFile("database_url", "postgresql+psycopg://sluice_app:{secret}@postgres:5432/sluice"),)),
    Secret(
        password,
        (SecretFile("database_system_url", "postgresql+psycopg://sluice_system:{secret}@postgres:5432/sluice"),),
    ),
    Secret(
        password,
        (SecretFile("database_owner_url", "postgresql+psycopg://sluice_owner:{secret}@postgres:5432/sluice"),),
    ),
    Secret(
        password,
        (
            _in_config(
                "rabbitmq_credentials",
                "default_user = sluice\ndefault_pass = {secret}\ndefault_vhost = sluice",
                "default_pass",
            ),
            _in_url("broker_url", "amqp://sluice:{secret}@rabbitmq:5672/sluice"),
        ),
    ),
    Secret(
        password,
        (
            _in_config("redis_config", "requirepass {secret}", "requirepass"),
            _in_url("redis_url", "redis://:{secret}@redis:6379/0"),
        ),
    ),
    Secret(lambda: _key(20), (SecretFile("s3_access_key"),)),
    Secret(lambda: _key(40), (SecretFile("s3_secret_key"),)),
    Secret(
        password,
        (
            SecretFile("qdrant_api_key"),
            _in_config("qdrant_config", "service:\n  api_key: {secret}", "api_key"),
        ),
    ),
    Secret(signing_key, (SecretFile("auth_private_key"),)),
    # Short enough to type, long enough not to be guessed: 96 bits.
    Secret(lambda: secrets.token_urlsafe(12), (SecretFile("admin_password"),)),
)
NAMES: Final = tuple(file.name for secret in SECRETS for file in secret.files)


def missing(existing: Mapping[str, str], wanted: Collection[str] = NAMES) -> dict[str, str]:
    """The wanted files that do not exist yet, with their contents, in agreement with those that do.

    `CommandError` when existing files contradict one another, are empty, or hide what a missing one must repeat.
    """
    return dict(file for secret in SECRETS for file in _missing_of(secret, existing, wanted))


def _missing_of(secret: Secret, existing: Mapping[str, str], wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    if not any(file.name in wanted for file in secret.files):
        return
    known = _known(secret, existing)
    lacking = [file for file in secret.files if file.name in wanted and file.name not in existing]
    if not lacking:
        return
    value = known if known is not None else secret.make()
    for file in lacking:
        yield file.name, file.text(value)


def _known(secret: Secret, existing: Mapping[str, str]) -> str | None:
    """The secret in the files that exist; None when there is none of them."""
    present = [file for file in secret.files if file.name in existing]
    for file in present:
        if not existing[file.name].strip():
            raise CommandError(f"{file.name} is empty. Remove it, and it is made anew.", Exit.CONFLICT)
    if len(secret.files) == 1 or not present:
        return None
    values = {file.name: file.secret_in(existing[file.name]) for file in present}
    names = " and ".join(values)
    if len(set(values.values())) > 1:
        raise CommandError(
            f"{names} hold different passwords. Remove the wrong one, and it is made from the other.", Exit.CONFLICT
        )
    (value,) = set(values.values())
    if len(present) < len(secret.files) and (value is None or not _PLAIN.fullmatch(value)):
        others = " and ".join(file.name for file in secret.files if file not in present)
        raise CommandError(
            f"{others} cannot be made from {names}: no password stands there, or it has characters other than letters, "
            f"digits and -._~. Write {others} yourself.",
            Exit.CONFLICT,
        )
    return value
