"""RabbitMQ as its operator holds it: looked at, broken, and given messages that nobody should send."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from amqp.exceptions import NotFound
from kombu.connection import Connection

from infra.embedded import system_packages
from infra.embedded.home import Home
from infra.embedded.ports import kept_ports
from infra.embedded.rabbitmq import PACKAGE
from sluice.broker import DEAD, EXCHANGE, INGEST, QUEUES, Publisher
from sluice.settings import BrokerSettings

_CONTROL: Final = system_packages.PROGRAMS[PACKAGE].with_name("rabbitmqctl")
# As infra/embedded/rabbitmq.py sets it.
_USUAL_WATERMARK: Final = "512MB"
_LOOK_SECONDS: Final = 0.1


class Broker:
    """The broker of one platform."""

    def __init__(self, home: Home, url: str) -> None:
        self._home = home
        self._url = url
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(home.data("rabbitmq")),
            "RABBITMQ_NODENAME": f"sluice-{home.tag}@localhost",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "ERL_EPMD_PORT": str(kept_ports(home).epmd),
        }

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` answers; it must succeed."""
        done = subprocess.run(
            [str(_CONTROL), "--quiet", *arguments],
            env=self._environment,
            cwd=self._home.run,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def restart(self) -> None:
        """Stop the application and start it again; what is durable stays."""
        self.control("stop_app")
        self.control("start_app")

    def forget_everything(self) -> None:
        """Start again as an empty node: no queue, no exchange, no message."""
        for command in ("stop_app", "reset", "start_app"):
            self.control(command)

    def close_connections(self) -> None:
        """Close every connection, as a network fault would."""
        self.control("close_all_connections", "--global", "an experiment")

    @contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Refuse to read from any connection that publishes, as a broker short of memory does."""
        self.control("set_vm_memory_high_watermark", "0.0001")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "absolute", _USUAL_WATERMARK)

    @contextmanager
    def impatient(self, milliseconds: int) -> Iterator[None]:
        """Close the channel of a consumer that does not acknowledge in this time; looked at every second."""
        before = {name: self._setting(name) for name in ("consumer_timeout", "channel_tick_interval")}
        self._set({"consumer_timeout": str(milliseconds), "channel_tick_interval": "1000"})
        try:
            yield
        finally:
            self._set(before)

    def waiting(self) -> dict[str, int]:
        """Messages that no consumer holds, by queue; -1 where there is no such queue."""
        return {name: self._declared(name)[0] for name in (*QUEUES, DEAD)}

    def is_consumed(self) -> bool:
        """Whether a worker listens."""
        try:
            return self._declared(INGEST)[1] > 0
        except OSError:
            return False

    def wait_consumed(self, seconds: float = 90) -> float:
        """Return when a worker listens; the seconds it took."""
        began = time.monotonic()
        while not self.is_consumed():
            assert time.monotonic() < began + seconds, f"no worker listens after {seconds:.0f} s"
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - began

    def publisher(self) -> Publisher:
        """A way to publish as the dispatcher does."""
        return Publisher(BrokerSettings(url=self._url))

    def publish_raw(self, body: bytes, *, routing_key: str = INGEST, **properties: Any) -> None:
        """Publish whatever it is, as software that is not ours might."""
        with Connection(self._url, connect_timeout=5) as connection, connection.Producer() as producer:
            # Bytes as they are: kombu would make a message of them that makes sense.
            producer.channel.basic_publish(
                producer.channel.prepare_message(body, **properties), exchange=EXCHANGE, routing_key=routing_key
            )

    def _declared(self, queue: str) -> tuple[int, int]:
        with Connection(self._url, connect_timeout=5) as connection:
            try:
                found = connection.default_channel.queue_declare(queue, passive=True)
            except NotFound:
                return -1, 0
            return found.message_count, found.consumer_count

    def _setting(self, name: str) -> str:
        found = self.control("eval", f"application:get_env(rabbit, {name}).")
        return found.removeprefix("{ok,").removesuffix("}")

    def _set(self, values: dict[str, str]) -> None:
        commands = " ".join(f"application:set_env(rabbit, {name}, {value})," for name, value in values.items())
        self.control("eval", f"{commands} ok.")
        # A channel reads its limits when it is opened.
        self.close_connections()
