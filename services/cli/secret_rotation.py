"""Replacing a secret of a deployment that runs: the new value, and what must happen next. Pure but for chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from services.cli.deployment_secrets import password, signing_key
from services.cli.exit_codes import CommandError, Exit


@dataclass(frozen=True)
class Rotation:
    """How a new value comes from the old one, and what to do with it."""

    renew: Callable[[str], str]
    afterwards: str


def new_login(role: str, url: str) -> str:
    """The same database by a login that does not exist yet.

    The database step makes it a member of the role and lets the old login work for another hour, so that processes
    that were started with the old one lose nothing while they are replaced.
    """
    parts = urlsplit(url.strip())
    if not parts.scheme.startswith("postgresql") or not parts.hostname:
        raise CommandError("This is no URL of a PostgreSQL database; write it anew.", Exit.CONFLICT)
    server = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}_{token_hex(4)}:{password()}@{server}")) + "\n"


_NEW_LOGIN: Final = (
    "Now run the database step (python -m services.api.prepare; the service migrate of the stack), then restart "
    "{services} with the new file. The old login works for an hour after that step."
)
ROTATIONS: Final = {
    "database_url": Rotation(
        partial(new_login, "sluice_app"), _NEW_LOGIN.format(services="the api, the workers and the dispatcher")
    ),
    "database_system_url": Rotation(
        partial(new_login, "sluice_system"), _NEW_LOGIN.format(services="the api and the dispatcher")
    ),
    "auth_private_key": Rotation(
        lambda _: signing_key(),
        "Now restart the api with the new file. Tokens of the old key are refused from then on: people sign in again.",
    ),
}

_BOTH: Final = "sluice secrets new DIRECTORY --force --only {} --only {}"
_SUPERUSER: Final = (
    "The server keeps the superuser's password. Make a new one ("
    + _BOTH.format("postgres_password", "database_admin_url")
    + "), set it as the superuser (ALTER ROLE postgres PASSWORD '…'), then run the database step with the new files."
)
_RABBITMQ: Final = (
    "RabbitMQ reads its file at its first start only. Make a new password ("
    + _BOTH.format("rabbitmq_credentials", "broker_url")
    + "), set it in the broker (rabbitmqctl change_password sluice …), then restart the workers and the dispatcher."
)
_REDIS: Final = (
    "Redis and its clients must change together. Make a new password ("
    + _BOTH.format("redis_config", "redis_url")
    + "), restart redis, then the api. Until then people sign in and get answers, only without counters and cache."
)
_S3: Final = (
    "The object store and its clients must change together. Make new keys ("
    + _BOTH.format("s3_access_key", "s3_secret_key")
    + "), restart the object store with them, then the api and the workers. Work waits meanwhile."
)
_QDRANT: Final = (
    "Qdrant and its clients must change together. Make a new key ("
    + _BOTH.format("qdrant_api_key", "qdrant_config")
    + "), restart qdrant, then the api and the workers. Search goes on by PostgreSQL's full text meanwhile."
)
INSTEAD: Final = {
    "postgres_password": _SUPERUSER,
    "database_admin_url": _SUPERUSER,
    "database_owner_url": (
        "Only the database step uses this login, and sets its password. Make a new one (sluice secrets new DIRECTORY "
        "--force --only database_owner_url), then run that step with it."
    ),
    "rabbitmq_credentials": _RABBITMQ,
    "broker_url": _RABBITMQ,
    "redis_config": _REDIS,
    "redis_url": _REDIS,
    "s3_access_key": _S3,
    "s3_secret_key": _S3,
    "qdrant_api_key": _QDRANT,
    "qdrant_config": _QDRANT,
    "admin_password": (
        "This file is read once, when the first administrator is made. For another way in, make another administrator: "
        "python -m sluice.identity.first_admin --tenant NAME --email ADDRESS --password-file FILE."
    ),
}


def rotation_of(name: str) -> Rotation:
    """How to rotate this file; `CommandError` says what is needed where a new file alone is not enough."""
    if name in ROTATIONS:
        return ROTATIONS[name]
    if name in INSTEAD:
        raise CommandError(f"{name} is not rotated by its file alone. {INSTEAD[name]}", Exit.USAGE)
    raise CommandError(f"There is no secret {name!r}. These can be rotated: {', '.join(ROTATIONS)}.", Exit.USAGE)
