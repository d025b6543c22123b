"""RabbitMQ of the Debian package, with a node name, ports and folders of its own, for any user."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from infra.embedded import probes, system_packages
from infra.embedded.credentials import Credentials
from infra.embedded.environment import LOOPBACK
from infra.embedded.home import Home, write_private
from infra.embedded.orphans import dying_with_parent
from infra.embedded.parts import Layer, Part
from infra.embedded.ports import Ports

PACKAGE: Final = "rabbitmq-server"
_SERVER: Final = system_packages.PROGRAMS[PACKAGE]
_EPMD: Final = Path("/usr/bin/epmd")
_ADVANCED: Final = Path(__file__).parents[1] / "rabbitmq-advanced.config"


def rabbitmq_parts(home: Home, ports: Ports, credentials: Credentials) -> list[Part]:
    """Erlang's port mapper, and the broker.

    The mapper is a part of its own, because a broker that finds none would start one that outlives it.
    """
    epmd = Part(
        name="epmd",
        layer=Layer.FOUNDATION,
        command=dying_with_parent([str(_EPMD), "-port", str(ports.epmd), "-address", LOOPBACK]),
        folder=home.run,
        probe=probes.epmd(LOOPBACK, ports.epmd),
        ports=(ports.epmd,),
        address=f"{LOOPBACK}:{ports.epmd}",
        prepare=lambda: system_packages.ensure([PACKAGE], home.log("system_packages")),
    )
    data = home.data("rabbitmq")
    password = credentials.password("rabbitmq")
    broker = Part(
        name="rabbitmq",
        layer=Layer.STORE,
        command=dying_with_parent([str(_SERVER)]),
        folder=data,
        probe=probes.amqp(f"amqp://sluice:{password}@{LOOPBACK}:{ports.rabbitmq}/sluice"),
        ports=(ports.rabbitmq, ports.rabbitmq_dist),
        address=f"{LOOPBACK}:{ports.rabbitmq}",
        environment=_environment(home, data, ports),
        depends_on=("epmd",),
        prepare=lambda: _write_configuration(home, data, ports, credentials),
        start_seconds=120,
        stop_seconds=60,
        repeat_stop_signal=True,
    )
    return [epmd, broker]


def _environment(home: Home, data: Path, ports: Ports) -> dict[str, str]:
    return {
        "HOME": str(data),
        "RABBITMQ_NODENAME": f"sluice-{home.tag}@localhost",
        "RABBITMQ_DIST_PORT": str(ports.rabbitmq_dist),
        "RABBITMQ_MNESIA_BASE": str(data / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home.logs),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(home.run / "rabbitmq.pid"),
        "RABBITMQ_CONFIG_FILE": str(home.run / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(_ADVANCED),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home.run / "rabbitmq-plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(data / "config"),
        # Loopback only, between nodes as well. One scheduler, which sleeps when there is nothing to do.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +SDcpu 1:1 +SDio 1 +sbwt none"
        ),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        # The script then becomes the broker instead of standing before it and passing signals on.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _write_configuration(home: Home, data: Path, ports: Ports, credentials: Credentials) -> None:
    data.mkdir(mode=0o700, exist_ok=True)
    cookie = data / ".erlang.cookie"
    if not cookie.exists():
        write_private(cookie, credentials.password("erlang_cookie"))
        cookie.chmod(0o400)
    write_private(home.run / "rabbitmq-plugins", "[].\n")
    write_private(
        home.run / "rabbitmq.conf",
        f"listeners.tcp.1 = {LOOPBACK}:{ports.rabbitmq}\n"
        "default_user = sluice\n"
        f"default_pass = {credentials.password('rabbitmq')}\n"
        "default_vhost = sluice\n"
        "vm_memory_high_watermark.absolute = 512MB\n"
        "disk_free_limit.absolute = 100MB\n"
        # Quorum queues keep this much of their log in memory before they write it out (Erlang's default: 512 MB).
        "raft.wal_max_size_bytes = 16777216\n"
        "log.console.level = warning\n",
    )
