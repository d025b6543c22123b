"""The dispatcher process: publishes what the outbox promises, and sends again what was lost.

`python -m services.workers.dispatcher`. Any number may run: rows are locked while they are published, and one of them
at a time sweeps.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import closing
from threading import Event
from types import FrameType
from typing import Final

import psycopg
from prometheus_client import Counter, Gauge, Histogram, start_http_server
from sqlalchemy.exc import SQLAlchemyError

from services.workers.recorder import Recorder
from services.workers.upkeep import Upkeep, jobs_gauge
from sluice.broker import QUEUES, Publisher, declare_topology, messages_waiting
from sluice.db.session import is_outage
from sluice.db.unscoped import UnscopedSessions, create_unscoped_sessions, unscoped_session
from sluice.environment import SettingsError, exit_with_reason
from sluice.errors import TemporarilyUnavailable
from sluice.jobs import dispatch, recovery
from sluice.jobs.outbox import CHANNEL, ROOM
from sluice.kill_points import KillPoint, load_kill_points, strike
from sluice.settings import BrokerSettings, DatabaseSettings, JobSettings, TelemetrySettings
from sluice.telemetry import configure_logging, logger

log = logger()
published = Counter("sluice_dispatched", "Messages published and confirmed", ["queue"])
requeued = Counter("sluice_requeued", "Steps queued again by the sweeper", ["reason"])
oldest_gauge = Gauge(
    "sluice_job_oldest_heartbeat_timestamp_seconds", "Unix time of the running step that was silent longest; 0: none"
)
starvation_gauge = Gauge(
    "sluice_starvation_seconds", "Longest time that a tenant with work due has waited without any of it being published"
)
slots_gauge = Gauge("sluice_worker_slots", "Steps that the workers that are there can run at once")
queue_wait = Histogram(
    "sluice_queue_wait_seconds",
    "Time from a message's being due to its being published",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300),
)
_AFTER_A_FAULT: Final = 1.0
_LOOK_SECONDS: Final = 5.0
_WITHOUT_ROOM: Final = 0.1
_TURN_SECONDS: Final = 1.0


class Relay:
    """Publishes due messages, queue by queue, tenant by tenant."""

    def __init__(self, sessions: UnscopedSessions, publisher: Publisher, settings: JobSettings) -> None:
        self._sessions = sessions
        self._publisher = publisher
        self._settings = settings
        # Something is due that did not fit when it was last looked at.
        self.wants_room = False

    def run_once(self) -> int:
        """Publish what is due now and fits; how many."""
        with unscoped_session(self._sessions) as session:
            waiting = dispatch.waiting_queues(session, QUEUES)
        self.wants_room = bool(waiting)
        return sum(self._relay(queue, slots) for queue, slots in waiting.items())

    def _relay(self, queue: str, slots: int) -> int:
        with unscoped_session(self._sessions) as session:
            messages = dispatch.due_messages(session, queue, self._settings, slots=slots)
            for message in messages:
                self._publisher.publish(
                    queue=queue,
                    task=message.task,
                    message_id=str(message.id),
                    body=message.body,
                    headers=message.headers,
                )
                queue_wait.observe(max(time.time() - message.available_at.timestamp(), 0.0))
                strike(KillPoint.RELAY_AFTER_PUBLISH_BEFORE_MARK, message.step_id)
            if messages:
                # Dying before this line publishes them twice; a second delivery finds nothing to claim.
                dispatch.mark_published(session, messages)
        published.labels(queue).inc(len(messages))
        return len(messages)


class Sweeper:
    """Queues again what a dead worker or a lost message left behind."""

    def __init__(self, sessions: UnscopedSessions, broker: BrokerSettings, settings: JobSettings) -> None:
        self._sessions = sessions
        self._broker = broker
        self._settings = settings
        self._next = 0.0
        self._next_look = 0.0
        self.wait_a_lease()

    def wait_a_lease(self) -> None:
        """Sweep no earlier: after an outage every lease looks expired, and whoever lives must get to renew its own."""
        self._next = time.monotonic() + self._settings.lease_seconds

    def run_if_due(self) -> None:
        """Sweep, unless it is too early or another dispatcher does it."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._settings.sweep_seconds
        with unscoped_session(self._sessions) as session:
            if not recovery.lead_sweeping(session):
                return
            silent = recovery.silent_jobs(session)
            overdue = recovery.overdue_queues(session, self._settings)
        expired = 0
        for job_id in silent:
            with unscoped_session(self._sessions) as session:
                expired += recovery.requeue_expired(session, job_id)
        incomplete = self._incomplete(overdue)
        with unscoped_session(self._sessions) as session:
            undelivered = recovery.requeue_undelivered(session, self._settings, incomplete)
        for reason, number in (("lease_expired", expired), ("undelivered", undelivered)):
            requeued.labels(reason).inc(number)
            if number:
                log.warning("sweeper.requeued", reason=reason, steps=number)

    def _incomplete(self, overdue: Mapping[str, int]) -> list[str]:
        """Those of these queues that have fewer messages than they should: behind long steps one may just wait."""
        if not overdue:
            return []
        try:
            waiting = messages_waiting(self._broker)
        except TemporarilyUnavailable as error:
            # What it lost, it will have lost when it is back.
            log.warning("sweeper.broker_away", detail=error.detail)
            return []
        return [queue for queue, number in overdue.items() if waiting.get(queue, 0) < number]

    def observe_if_due(self) -> None:
        """Bring the gauges up to date, every few seconds."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        with unscoped_session(self._sessions) as session:
            live = dispatch.count_live(session)
            oldest_gauge.set(dispatch.oldest_heartbeat(session, self._settings) or 0)
            starvation_gauge.set(dispatch.starvation_seconds(session))
            slots_gauge.set(dispatch.worker_slots(session))
        for state, number in live.items():
            jobs_gauge.labels(state.value).set(number)


class Bell:
    """Rings when a transaction that promised a message commits (LISTEN); a poll serves while PostgreSQL is away."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._connection: psycopg.Connection | None = None

    def wait(self, seconds: float, *, for_room: bool) -> None:
        """Return when it rings, or after `seconds`; that a queue has room counts only when it is waited `for_room`."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5)
                self._connection.execute(f"LISTEN {CHANNEL}")
                self._connection.execute(f"LISTEN {ROOM}")
                return
            # Closed before the next use of the connection, or it would go on holding it.
            with closing(self._connection.notifies(timeout=seconds)) as rings:
                for ring in rings:
                    if for_room or ring.channel == CHANNEL:
                        break
            # Many ring at once; one look serves them all.
            for _ in self._connection.notifies(timeout=0):
                pass
        except psycopg.Error:
            self.close()
            time.sleep(min(seconds, _AFTER_A_FAULT))

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def main() -> None:
    """Relay and sweep until told to stop."""
    try:
        telemetry = TelemetrySettings.from_environment()
        configure_logging("dispatcher", telemetry)
        load_kill_points()
        database = DatabaseSettings.from_environment()
        broker = BrokerSettings.from_environment()
        settings = JobSettings.from_environment()
        sessions = create_unscoped_sessions(database)
    except SettingsError as error:
        exit_with_reason(error)
    if telemetry.metrics_port is not None:
        start_http_server(telemetry.metrics_port)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: _stop(stop, _frame))
    assert database.system_url is not None  # noqa: S101 - create_unscoped_sessions has refused otherwise
    bell = Bell(database.system_url.get_secret_value())
    _run(bell, sessions, broker, settings, stop)
    bell.close()


def _run(bell: Bell, sessions: UnscopedSessions, broker: BrokerSettings, settings: JobSettings, stop: Event) -> None:
    publisher = Publisher(broker)
    relay = Relay(sessions, publisher, settings)
    recorder = Recorder(sessions, broker, settings)
    sweeper = Sweeper(sessions, broker, settings)
    upkeep = Upkeep(sessions, settings)
    declared = False
    log.info("dispatcher.started")
    while not stop.is_set():
        try:
            # What needs PostgreSQL alone goes on while the broker is away.
            sweeper.run_if_due()
            sweeper.observe_if_due()
            upkeep.run_if_due()
            if not declared:
                declare_topology(broker)
                declared = True
            is_behind = _publish_for_a_turn(relay, stop)
            recorder.run_if_due()
            if is_behind:
                continue
        except TemporarilyUnavailable as error:
            declared = False
            log.warning("dispatcher.part_away", code=error.code, detail=error.detail)
            stop.wait(_AFTER_A_FAULT)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            log.warning("dispatcher.part_away", code="database_unavailable", error=type(error).__name__)
            sweeper.wait_a_lease()
            stop.wait(_AFTER_A_FAULT)
        # Steps that are over at once do not each tell of the room that they leave.
        patience = min(_WITHOUT_ROOM, settings.poll_seconds) if relay.wants_room else settings.poll_seconds
        bell.wait(patience, for_room=relay.wants_room)
    recorder.close()
    publisher.close()


def _publish_for_a_turn(relay: Relay, stop: Event) -> bool:
    """Publish what is due, for a second at most: all that is done here has its turn. Whether there is more."""
    ends = time.monotonic() + _TURN_SECONDS
    while relay.run_once():
        if stop.is_set() or time.monotonic() >= ends:
            return True
    return False


def _stop(stop: Event, _: FrameType | None) -> None:
    stop.set()


if __name__ == "__main__":
    main()
