"""Names of secrets and configs: Swarm never changes one, so a new content needs a new name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from infra.swarm.docker import DeployError, Docker

CONFIGS: Final = {
    "rabbitmq_config": Path("infra/swarm/rabbitmq.conf"),
    "rabbitmq_advanced_config": Path("infra/rabbitmq-advanced.config"),
}
SECRETS: Final = (
    "database_url", "database_system_url", "database_owner_url", "database_admin_url", "postgres_password",
    "redis_config", "redis_url", "rabbitmq_credentials", "broker_url", "s3_access_key", "s3_secret_key",
    "qdrant_api_key", "auth_private_key", "admin_password",
)  # fmt: skip
TLS_SECRETS: Final = ("tls_certificate", "tls_key")
# With one previous version kept, `docker service rollback` still finds what it needs.
_KEPT: Final = 2
_HASH: Final = re.compile(r"_[0-9a-f]{12}$")


def content_hashes(root: Path, secrets: Path, *, tls: bool) -> dict[str, str]:
    """The variables `SHA_<NAME>` that stack.yml puts into names."""
    wanted = (*SECRETS, *(TLS_SECRETS if tls else ()))
    missing = [name for name in wanted if not (secrets / name).is_file()]
    if missing:
        raise DeployError(
            f"{secrets} lacks {', '.join(missing)}. Make what is missing: infra/swarm/deploy init"
            + (" (the TLS files are yours to put there)" if set(missing) & set(TLS_SECRETS) else "")
        )
    files = {name: secrets / name for name in wanted} | {name: root / path for name, path in CONFIGS.items()}
    return {f"SHA_{name.upper()}": sha256(path.read_bytes()).hexdigest()[:12] for name, path in files.items()}


def changes(docker: Docker, stack: str, hashes: Mapping[str, str]) -> list[str]:
    """The names that a deploy with these hashes would make."""
    known = {row["Name"] for kind in ("secret", "config") for row in docker.rows(kind, "ls")}
    wanted = {f"{stack}_{name.removeprefix('SHA_').lower()}_{value}" for name, value in hashes.items()}
    return sorted(wanted - known)


def prune(docker: Docker, stack: str) -> list[str]:
    """Remove all but the newest versions of each secret and config of the stack; what was removed.

    One that a service still uses is refused by the engine, and stays.
    """
    removed = []
    for kind in ("secret", "config"):
        ours = f"label=com.docker.stack.namespace={stack}"
        names = [row["Name"] for row in docker.rows(kind, "ls", "--filter", ours)]
        versions: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for found in docker.inspect(kind, [name for name in names if _HASH.search(name)]):
            name = found["Spec"]["Name"]
            versions[_HASH.sub("", name)].append((found["CreatedAt"], name))
        for known in versions.values():
            for _, name in sorted(known, reverse=True)[_KEPT:]:
                try:
                    docker.call(kind, "rm", name)
                except DeployError:
                    continue
                removed.append(name)
    return removed
