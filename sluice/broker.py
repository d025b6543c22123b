"""The broker: queues of RabbitMQ, and a way to put a message into one that cannot lose it unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError

from sluice.errors import TemporarilyUnavailable
from sluice.settings import BrokerSettings

EXCHANGE: Final = "sluice.v1"
UNROUTED: Final = "sluice.v1.unrouted"
DEAD_LETTER_EXCHANGE: Final = "sluice.v1.dlx"
DEAD: Final = "sluice.v1.dead"

# Small documents: a person waits for these.
URGENT: Final = "sluice.v1.urgent"
INGEST: Final = "sluice.v1.ingest"
EMBED: Final = "sluice.v1.embed"
ANALYZE: Final = "sluice.v1.analyze"
MAINTENANCE: Final = "sluice.v1.maintenance"
QUEUES: Final = (URGENT, INGEST, EMBED, ANALYZE, MAINTENANCE)

_exchange: Final = Exchange(EXCHANGE, type="topic", durable=True, arguments={"alternate-exchange": UNROUTED})
_FOURTEEN_DAYS: Final = 14 * 24 * 3600 * 1000


def work_queues() -> list[Queue]:
    """The queues that workers consume. Arguments are part of a queue's identity: a change needs a new name."""
    arguments = {
        "x-queue-type": "quorum",
        # The only bound that a broker puts on a crash loop; the attempts in PostgreSQL end long before it.
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return [Queue(name, _exchange, routing_key=name, durable=True, queue_arguments=arguments) for name in QUEUES]


@contextmanager
def may_be_away(connection: Connection) -> Iterator[None]:
    """Turn what goes wrong on this connection into `TemporarilyUnavailable`."""
    # Celery publishes through kombu, which wraps connection errors in one of its own that is none of them; a queue that
    # is full refuses with an error that is neither.
    others = (OperationalError, MessageNacked, OSError)
    try:
        yield
    except (*connection.connection_errors, *connection.channel_errors, *others) as error:
        detail = f"The broker does not do what it should ({type(error).__name__}: {error})."
        raise TemporarilyUnavailable(detail, code="broker_unavailable") from error


def declare_topology(settings: BrokerSettings) -> None:
    """Make every exchange and queue; safe to repeat. `TemporarilyUnavailable` when the broker is away or refuses."""
    connection = Connection(settings.url.get_secret_value(), connect_timeout=5)
    with may_be_away(connection), connection, connection.channel() as channel:
        unrouted = Exchange(UNROUTED, type="fanout", durable=True)
        dead_letters = Exchange(DEAD_LETTER_EXCHANGE, type="topic", durable=True)
        arguments = {"x-queue-type": "quorum", "x-message-ttl": _FOURTEEN_DAYS}
        dead = Queue(DEAD, dead_letters, routing_key="#", durable=True, queue_arguments=arguments)
        dead(channel).declare()
        unrouted(channel).declare()
        Queue(DEAD, unrouted, routing_key="#", durable=True, queue_arguments=arguments)(channel).declare()
        for queue in work_queues():
            queue(channel).declare()


def messages_waiting(settings: BrokerSettings) -> dict[str, int]:
    """How many messages of each work queue no worker has; a queue that somebody has deleted is made anew.

    On a connection of its own: the broker would not answer on one that publishes, while it is short of memory.
    """
    declare_topology(settings)
    limits = {"read_timeout": 10, "write_timeout": 10}
    connection = Connection(settings.url.get_secret_value(), connect_timeout=5, transport_options=limits)
    with may_be_away(connection), connection, connection.channel() as channel:
        return {queue.name: queue(channel).queue_declare(passive=True).message_count for queue in work_queues()}


def celery_app(settings: BrokerSettings, *, transport: dict[str, Any] | None = None) -> Celery:
    """The Celery application of workers and dispatcher. Why each setting: docs/decisions/0004."""
    app = Celery("sluice", broker=settings.url.get_secret_value(), set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure=False,
        task_acks_on_timeout=True,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_soft_shutdown_timeout=25,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_soft_time_limit=300,
        task_time_limit=360,
        task_create_missing_queues=False,
        task_default_exchange=EXCHANGE,
        task_default_exchange_type="topic",
        task_default_queue=INGEST,
        task_default_routing_key=INGEST,
        task_queues=work_queues(),
        broker_channel_error_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=30,
        broker_native_delayed_delivery_queue_type="classic",
        broker_transport_options={"confirm_publish": True, **(transport or {})},
    )
    return app


class Publisher:
    """Publishes tasks with confirms, on a connection of its own whose waits all end."""

    def __init__(self, settings: BrokerSettings, timeout: float = 10.0) -> None:
        # Without read and write timeouts a broker under a memory alarm would hold this process for ever.
        limits = {"read_timeout": timeout, "write_timeout": timeout}
        self._app = celery_app(settings, transport=limits)
        self._connection = self._app.connection_for_write(connect_timeout=5)
        self._timeout = timeout

    def publish(self, *, queue: str, task: str, message_id: str, body: dict[str, Any], headers: dict[str, Any]) -> None:
        """Return once the broker has the message safe; `TemporarilyUnavailable` when it does not say so."""
        try:
            with may_be_away(self._connection):
                self._app.send_task(
                    task,
                    kwargs=body,
                    task_id=message_id,
                    queue=queue,
                    headers=headers,
                    connection=self._connection,
                    mandatory=True,
                    confirm_timeout=self._timeout,
                    retry=False,
                )
        except TemporarilyUnavailable:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; the next message opens a new one."""
        self._connection.close()
        self._connection = self._app.connection_for_write(connect_timeout=5)
