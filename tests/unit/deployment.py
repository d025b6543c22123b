"""stack.yml and docker-compose.yml, as tests look at them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from infra.swarm.compose_files import Variable, default_of, interpolate, load

ROOT = Path(__file__).parents[2]
STACK = load(ROOT / "stack.yml")
COMPOSE = load(ROOT / "docker-compose.yml")
TLS = load(ROOT / "infra" / "swarm" / "tls.yml")
MOUNTED = "/run/secrets"


def by_name(value: Any) -> Any:
    """The same with `<NAME>` for each variable: equal when both files say the same, whatever their defaults."""

    def name_of(variable: Variable) -> str:
        return f"<{variable.name}>"

    return interpolate(value, name_of)


def with_defaults(value: Any) -> Any:
    """The same as it is when nobody sets a variable."""
    return interpolate(value, default_of)


def secrets_named(service: dict[str, Any]) -> set[str]:
    """The secrets whose files a service reads: in its variables, commands and health check."""
    parts = [service.get(key) for key in ("environment", "entrypoint", "command", "healthcheck")]
    return set(re.findall(rf"{MOUNTED}/(\w+)", str(parts)))


def mounts(service: dict[str, Any]) -> set[tuple[str, str]]:
    """What is mounted where: pairs of type and target."""
    return {(mount["type"], mount["target"]) for mount in service.get("volumes", [])}


def seconds(text: str) -> float:
    """`90s` and `2m` as numbers."""
    return float(text[:-1]) * {"s": 1, "m": 60}[text[-1]]
