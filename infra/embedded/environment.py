"""The `SLUICE_*` variables that tie the services to the servers of this platform."""

from __future__ import annotations

import os
from collections.abc import Mapping

from infra.embedded.credentials import Credentials
from infra.embedded.home import HOME_VARIABLE, Home, write_private
from infra.embedded.ports import Ports

LOOPBACK = "127.0.0.1"
BUCKET = "sluice"


def service_environment(home: Home, ports: Ports, credentials: Credentials) -> dict[str, str]:
    """Every `SLUICE_*` variable; those that the caller has set win."""
    ours = _own_variables(ports, credentials)
    callers = {name: value for name, value in os.environ.items() if name.startswith("SLUICE_")}
    # `X` and `X_FILE` may not both be set: the caller's form replaces ours.
    replaced = {name.removesuffix("_FILE") for name in callers} | {f"{name}_FILE" for name in callers}
    kept = {name: value for name, value in ours.items() if name not in replaced}
    return kept | callers | {HOME_VARIABLE: str(home.path)}


def _own_variables(ports: Ports, credentials: Credentials) -> dict[str, str]:
    def database(role: str) -> str:
        return f"postgresql+psycopg://{role}:{credentials.password(role)}@{LOOPBACK}:{ports.postgres}/sluice"

    return {
        "SLUICE_DATABASE_URL": database("sluice_app"),
        "SLUICE_DATABASE_SYSTEM_URL": database("sluice_system"),
        "SLUICE_DATABASE_OWNER_URL": database("sluice_owner"),
        "SLUICE_BROKER_URL": f"amqp://sluice:{credentials.password('rabbitmq')}@{LOOPBACK}:{ports.rabbitmq}/sluice",
        "SLUICE_REDIS_URL": f"redis://:{credentials.password('redis')}@{LOOPBACK}:{ports.redis}/0",
        "SLUICE_S3_ENDPOINT": f"http://{LOOPBACK}:{ports.s3}",
        "SLUICE_S3_ACCESS_KEY": credentials.password("s3_access_key"),
        "SLUICE_S3_SECRET_KEY": credentials.password("s3_secret_key"),
        "SLUICE_S3_BUCKET": BUCKET,
        "SLUICE_QDRANT_URL": f"http://{LOOPBACK}:{ports.qdrant}",
        "SLUICE_EMB_URL": f"http://{LOOPBACK}:{ports.emb}",
        "SLUICE_EMB_HOST": LOOPBACK,
        "SLUICE_EMB_PORT": str(ports.emb),
        "SLUICE_LLM_URL": f"http://{LOOPBACK}:{ports.llm}",
        "SLUICE_LLM_HOST": LOOPBACK,
        "SLUICE_LLM_PORT": str(ports.llm),
        "SLUICE_API_HOST": LOOPBACK,
        "SLUICE_API_PORT": str(ports.api),
        "SLUICE_AUTH_PRIVATE_KEY_FILE": str(credentials.auth_key_file()),
    }


def write_env_file(home: Home, variables: Mapping[str, str]) -> None:
    """Write the variables so that a shell and `docker --env-file` alike can read them."""
    lines = [f"{name}={_quoted(value)}\n" for name, value in sorted(variables.items())]
    write_private(home.env_file, "".join(lines))


def _quoted(value: str) -> str:
    plain = all(character.isalnum() or character in "_-+.,:/@%=" for character in value)
    return value if plain else "'" + value.replace("'", "'\\''") + "'"
