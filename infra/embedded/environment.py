"""The `SLUICE_*` variables that tie the services to the servers of this platform."""

from __future__ import annotations

import os
from collections.abc import Mapping

from infra.embedded import system_packages
from infra.embedded.credentials import Credentials
from infra.embedded.home import HOME_VARIABLE, Home, write_private
from infra.embedded.ports import Ports

LOOPBACK = "127.0.0.1"
BUCKET = "sluice"
# nginx, and envsubst, with which its configuration is written.
EDGE_PACKAGES = ("nginx-light", "gettext-base")


def service_environment(home: Home, ports: Ports, credentials: Credentials) -> dict[str, str]:
    """Every `SLUICE_*` variable; those that the caller has set win, but for `SLUICE_URL`, which may be another's."""
    ours = _own_variables(ports, credentials) | (_edge_variables(home, ports) if has_edge() else {})
    callers = {name: value for name, value in os.environ.items() if name.startswith("SLUICE_")}
    # `X` and `X_FILE` may not both be set: the caller's form replaces ours.
    replaced = {name.removesuffix("_FILE") for name in callers} | {f"{name}_FILE" for name in callers}
    kept = {name: value for name, value in ours.items() if name not in replaced}
    merged = kept | callers | {HOME_VARIABLE: str(home.path)}
    url = _url(merged)
    if has_edge() and replaced.isdisjoint({"SLUICE_S3_ENDPOINT", "SLUICE_S3_PUBLIC_ENDPOINT"}):
        # Presigned URLs go the same way as everything else.
        merged = {"SLUICE_S3_PUBLIC_ENDPOINT": url} | merged
    return merged | {"SLUICE_URL": url}


def has_edge() -> bool:
    """Whether nginx can stand before the API: it is no part of the platform where it is not installed."""
    return not system_packages.missing(EDGE_PACKAGES)


def reachable(host: str) -> str:
    """The address by which this machine reaches what listens on `host`."""
    return LOOPBACK if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound


def _url(variables: Mapping[str, str]) -> str:
    host, port = ("NGINX_ADDRESS", "NGINX_HTTP_PORT") if has_edge() else ("API_HOST", "API_PORT")
    return f"http://{reachable(variables[f'SLUICE_{host}'])}:{variables[f'SLUICE_{port}']}"


def _edge_variables(home: Home, ports: Ports) -> dict[str, str]:
    return {
        "SLUICE_NGINX_ADDRESS": LOOPBACK,
        "SLUICE_NGINX_HTTP_PORT": str(ports.nginx),
        "SLUICE_NGINX_S3": f"{LOOPBACK}:{ports.s3}",
        "SLUICE_NGINX_WORKERS": "1",
        "SLUICE_NGINX_MODE_DIR": str(home.path / "mode"),
        "SLUICE_NGINX_RUN_DIR": str(home.run / "nginx"),
    }


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
