"""A broker that is away, or cuts connections: one error, whatever the library makes of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest
from amqp.exceptions import MessageNacked
from kombu.connection import Connection

from sluice.broker import URGENT, Publisher, declare_topology, may_be_away
from sluice.errors import TemporarilyUnavailable
from sluice.settings import BrokerSettings


@pytest.fixture
def nobody() -> BrokerSettings:
    """An address where nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    return _at(port)


@pytest.fixture
def rude() -> Iterator[BrokerSettings]:
    """An address where every connection is closed as soon as it is open."""
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.close()

    thread = Thread(target=hang_up, daemon=True)
    thread.start()
    yield _at(server.getsockname()[1])
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_a_broker_that_cuts_connections_is_temporarily_unavailable(rude: BrokerSettings) -> None:
    publisher = Publisher(rude, timeout=2)

    with pytest.raises(TemporarilyUnavailable, match="broker") as refused:
        publisher.publish(queue=URGENT, task="jobs.run_step", message_id="1", body={}, headers={})
    publisher.close()

    assert refused.value.code == "broker_unavailable"


def test_a_broker_that_is_not_there_is_temporarily_unavailable(nobody: BrokerSettings) -> None:
    with pytest.raises(TemporarilyUnavailable, match="broker") as refused:
        declare_topology(nobody)

    assert refused.value.code == "broker_unavailable"


def test_a_queue_that_is_full_is_temporarily_unavailable(nobody: BrokerSettings) -> None:
    with pytest.raises(TemporarilyUnavailable), may_be_away(Connection(nobody.url.get_secret_value())):
        raise MessageNacked


def _at(port: int) -> BrokerSettings:
    return BrokerSettings(url=f"amqp://guest:guest@127.0.0.1:{port}//")
