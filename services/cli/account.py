"""Which server the command talks to, and as whom."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_config_path

from services.cli.exit_codes import CommandError, Exit


@dataclass(frozen=True)
class Account:
    """A server, and the token to show it."""

    url: str
    token: str


@dataclass(frozen=True)
class EmbeddedPlatform:
    """What the platform of this checkout left for other commands to read."""

    url: str
    email: str
    password: str


def load() -> Account:
    """The account that `sluice login` saved; `SLUICE_URL` and `SLUICE_TOKEN` win over it."""
    saved = _saved()
    url = os.environ.get("SLUICE_URL") or saved.get("url")
    token = os.environ.get("SLUICE_TOKEN") or saved.get("token", "")
    if not url:
        raise CommandError("No server is known. Sign in first: sluice login --url https://…", Exit.NOT_CONFIGURED)
    return Account(url, token)


def save(account: Account) -> Path:
    """Keep the account for the next command, readable by its owner only."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(json.dumps(asdict(account)), encoding="utf-8")
    return path


def embedded() -> EmbeddedPlatform | None:
    """The platform that `make up` started in this folder, if there is one."""
    home = Path(os.environ.get("SLUICE_HOME", ".sluice"))
    environment, password = home / "env", home / "secrets" / "admin_password"
    try:
        lines = environment.read_text(encoding="utf-8").splitlines()
        secret = password.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    variables = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    url = variables.get("SLUICE_URL")
    return EmbeddedPlatform(url, "admin@sluice.local", secret) if url else None


def _path() -> Path:
    return user_config_path("sluice") / "account.json"


def _saved() -> dict[str, str]:
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
