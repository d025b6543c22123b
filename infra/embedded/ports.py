"""Ports: chosen free at the first start, the same ever after."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Final

import psutil

from infra.embedded.failures import PortTakenError
from infra.embedded.home import Home, write_private

# Below the range that the kernel gives to outgoing connections: one of those could take the port while we are down.
_CHOICE: Final = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """One port for each listener of the platform, all on the loopback address."""

    postgres: int
    redis: int
    epmd: int
    rabbitmq: int
    rabbitmq_dist: int
    s3: int
    qdrant: int
    emb: int
    llm: int
    api: int
    worker_metrics: int
    dispatcher_metrics: int
    nginx: int


def kept_ports(home: Home) -> Ports:
    """The platform's ports; chosen and written down when there are none yet."""
    names = [field.name for field in fields(Ports)]
    kept: dict[str, int] = json.loads(home.ports_file.read_text()) if home.ports_file.exists() else {}
    new = [name for name in names if name not in kept]
    ports = Ports(
        **{name: kept[name] for name in names if name in kept}, **dict(zip(new, _free(len(new)), strict=True))
    )
    if new:
        write_private(home.ports_file, json.dumps(asdict(ports), indent=1) + "\n")
    return ports


def refuse_taken(part: str, ports: Iterable[int], home: Home) -> None:
    """`PortTakenError` if somebody else listens on a port that this part is about to use."""
    for port in ports:
        if not _is_free(port):
            raise PortTakenError(
                f"{part} cannot start: its port {port} is taken by {_holder(port)}. Stop that process, or delete "
                f"{home.ports_file} while the platform is down to have new ports chosen; no data depends on them."
            )


def _free(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(_CHOICE, len(_CHOICE)):
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that have just ended do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    for connection in psutil.net_connections("inet"):
        if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
            if connection.pid is None:
                break
            return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"
