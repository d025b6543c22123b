"""The recorder: what RabbitMQ gave up becomes a row that a person can see, before it leaves the dead letters' queue."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from kombu.connection import Connection
from kombu.message import Message
from prometheus_client import Counter
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from sluice.broker import DEAD, QUEUES, declare_topology, may_be_away
from sluice.db.unscoped import UnscopedSessions, unscoped_session
from sluice.errors import SluiceError
from sluice.ids import derived_id, new_id
from sluice.jobs import recovery
from sluice.jobs.dead_letters import signature_of
from sluice.jobs.models import DeadLetter, Job, JobStep
from sluice.settings import BrokerSettings, JobSettings
from sluice.storable import made_storable
from sluice.telemetry import logger

log = logger()
recorded = Counter("sluice_dead_letters", "Dead letters of the broker, recorded", ["reason"])
_AT_ONCE: Final = 100
# The reason of what has died in no queue, because there was none for it.
_UNROUTED: Final = "unrouted"
_EVERY_SECONDS: Final = 1.0
_LONGEST_BODY: Final = 4_000
_REFUSED: Final = (
    "RabbitMQ gave the message of this step up ({reason}): no worker could take it. Are workers and dispatcher of the "
    "same version? The worker's log has `message.rejected`. Put that right, then replay the dead letter."
)


class Recorder:
    """Empties the queue of dead letters into the table `dead_letters`, one row for each message."""

    def __init__(self, sessions: UnscopedSessions, broker: BrokerSettings, settings: JobSettings) -> None:
        self._sessions = sessions
        self._broker = broker
        self._settings = settings
        self._connection: Connection | None = None
        self._next = 0.0
        # Since the last look at the dead letters.
        self._has_declared = False

    def run_if_due(self) -> None:
        """Record what is there, once a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            self.run_once()

    def run_once(self) -> int:
        """Record what is there; how many. `TemporarilyUnavailable` when the broker is away."""
        if self._connection is None:
            limits = {"read_timeout": 10, "write_timeout": 10}
            self._connection = Connection(
                self._broker.url.get_secret_value(), connect_timeout=5, transport_options=limits
            )
        try:
            with may_be_away(self._connection):
                return self._empty(self._connection.default_channel)
        except BaseException:
            # What was taken and not recorded goes back to the queue with its channel.
            self.close()
            raise

    def _empty(self, channel: Any) -> int:
        self._has_declared = False
        for number in range(_AT_ONCE):
            message = channel.basic_get(DEAD)
            if message is None:
                return number
            self._record(channel.message_to_python(message))
        return _AT_ONCE

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    def _record(self, message: Message) -> None:
        headers = _headers_of(message)
        death = _death(headers)
        reason = str(death.get("reason", _UNROUTED))
        queue = str(death.get("queue") or _storable(message.delivery_info.get("routing_key")) or "")
        body = _as_text(message.body)
        # Somebody has deleted a queue: it is made anew, and the step is not to blame. One that this code does not know
        # would never be there; its messages count as attempts, so that they come to an end.
        lost_its_queue = reason == _UNROUTED and queue in QUEUES
        if lost_its_queue and not self._has_declared:
            declare_topology(self._broker)
            self._has_declared = True
        with unscoped_session(self._sessions) as session:
            step = _step_of(session, body)
            step_id = step.id if step else None
            new = _insert(session, message, headers, reason=reason, queue=queue, body=body, step=step)
            if new and step is not None and lost_its_queue:
                recovery.send_again(session, step.id)
            elif new and step is not None:
                error = SluiceError(_REFUSED.format(reason=reason), code="message_refused", cause_class=reason)
                recovery.refuse_delivery(session, step.id, error, self._settings)
        message.ack()
        if new:
            recorded.labels(reason).inc()
            log.warning("dead_letter.recorded", reason=reason, queue=queue, step_id=str(step_id) if step_id else None)


def _insert(
    session: Session,
    message: Message,
    headers: Mapping[str, Any],
    *,
    reason: str,
    queue: str,
    body: str,
    step: JobStep | None,
) -> bool:
    """Add the row; False when this message has one already."""
    job = session.get(Job, step.job_id) if step else None
    task = str(headers.get("task") or "")
    row = {
        "id": new_id(),
        "tenant_id": step.tenant_id if step else None,
        "origin": "broker",
        "message_id": _message_id(message, headers, body),
        "queue": queue[:100],
        "reason": reason[:60],
        "signature": signature_of(step.step if step else task, reason, None, None),
        "job_id": step.job_id if step else None,
        "step_id": step.id if step else None,
        "document_id": job.document_id if job else None,
        "step": step.step if step else None,
        "part": step.part if step else None,
        "attempts": step.attempt if step else 0,
        "error_message": f"RabbitMQ gave the message up: {reason}.",
        "headers": headers,
        "body": body,
    }
    added = insert(DeadLetter).values(row).on_conflict_do_nothing(index_elements=["message_id"])
    return session.execute(added.returning(DeadLetter.id)).one_or_none() is not None


def _message_id(message: Message, headers: Mapping[str, Any], body: str) -> str:
    """Its own id; for one without, what it is and when it died, so that the same message is recorded once."""
    own = message.properties.get("message_id") or headers.get("id") or message.properties.get("correlation_id")
    return _storable(str(own))[:100] if own else str(derived_id(body, json.dumps(headers, sort_keys=True)))


def _as_text(body: Any) -> str:
    content = bytes(body) if isinstance(body, (bytes, bytearray, memoryview)) else str(body).encode(errors="replace")
    return made_storable(content[:_LONGEST_BODY].decode("utf-8", errors="replace"))


def _headers_of(message: Message) -> dict[str, Any]:
    try:
        return dict(_storable(message.headers or {}))
    except RecursionError:
        return {"unreadable": "nested too deeply"}


def _storable(value: Any) -> Any:
    """The value as JSON that PostgreSQL takes: anybody may have put anything into the headers of a message."""
    match value:
        case str():
            return made_storable(value)
        case Mapping():
            return {made_storable(str(name)): _storable(each) for name, each in value.items()}
        case list() | tuple():
            return [_storable(each) for each in value]
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            return made_storable(str(value))


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where and why it died last, as RabbitMQ says; nothing when somebody else has written that header."""
    match headers.get("x-death"):
        case [Mapping() as last, *_]:
            return last
        case _:
            return {}


def _step_of(session: Session, body: str) -> JobStep | None:
    """The step that the message was to wake, when its body says so and there is one."""
    try:
        # Celery's second protocol: [args, kwargs, embed].
        step_id = UUID(str(json.loads(body)[1]["step_id"]))
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return session.scalars(select(JobStep).where(JobStep.id == step_id)).one_or_none()
