"""A broker that is away, or cuts connections: one error, whatever the library makes of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from threading import Thread

import pytest
from amqp.exceptions import MessageNacked
from kombu.connection import Connection

from infra.embedded.platform import Platform
from sluice.broker import MAINTENANCE, QUEUES, URGENT, Publisher, declare_topology, may_be_away, messages_waiting
from sluice.errors import TemporarilyUnavailable
from sluice.ids import new_id
from sluice.settings import BrokerSettings
from sluice.wire.messages import RunStep


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


def test_what_no_worker_has_yet_is_counted_queue_by_queue(platform: Platform, variables: dict[str, str]) -> None:
    broker = BrokerSettings(url=variables["SLUICE_BROKER_URL"])
    # Of nobody's step: whoever gets it finds nothing to claim.
    message = RunStep(tenant_id=new_id(), step_id=new_id())
    body = message.model_dump(mode="json")

    with platform.away("worker"), platform.away("dispatcher"):
        before = messages_waiting(broker)
        publisher = Publisher(broker)
        for _ in range(3):
            publisher.publish(
                queue=MAINTENANCE, task=message.task_name, message_id=str(new_id()), body=body, headers={}
            )
        publisher.close()
        after = messages_waiting(broker)

    assert set(before) == set(QUEUES)
    assert after == before | {MAINTENANCE: before[MAINTENANCE] + 3}


def test_nobody_can_say_what_waits_at_a_broker_that_is_away(nobody: BrokerSettings) -> None:
    with pytest.raises(TemporarilyUnavailable):
        messages_waiting(nobody)


def _at(port: int) -> BrokerSettings:
    return BrokerSettings(url=f"amqp://guest:guest@127.0.0.1:{port}//")
