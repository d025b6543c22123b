"""The worker process: `python -m services.workers.main [--concurrency N]`."""

from __future__ import annotations

import argparse
import os
import socket

from prometheus_client import CollectorRegistry, multiprocess, start_http_server
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_fixed

from services.workers.app import create_app
from services.workers.presence import Presence
from sluice.broker import QUEUES, declare_topology
from sluice.environment import SettingsError, exit_with_reason
from sluice.errors import TemporarilyUnavailable
from sluice.kill_points import load_kill_points
from sluice.settings import BrokerSettings, DatabaseSettings, TelemetrySettings
from sluice.telemetry import configure_logging, logger


def main() -> None:
    """Consume every work queue until told to stop; SIGTERM returns unfinished steps to the queue."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--concurrency", type=int, default=2, help="steps run at once (default 2)")
    concurrency = arguments.parse_args().concurrency
    # Read by Celery: SIGTERM then begins a soft shutdown instead of waiting without end for the running step.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    try:
        telemetry = TelemetrySettings.from_environment()
        configure_logging("worker", telemetry)
        broker = BrokerSettings.from_environment()
        database = DatabaseSettings.from_environment()
        load_kill_points()
        app = create_app()
    except SettingsError as error:
        exit_with_reason(error)
    _wait_for(broker)
    _serve_metrics(telemetry)
    presence = Presence(database, name=f"{socket.gethostname()}:{os.getpid()}", concurrency=concurrency)
    presence.begin()
    try:
        app.worker_main(
            [
                "worker",
                # Two workers of one machine must not have one name: the broker would give the second nothing to do.
                f"--hostname=worker-{os.getpid()}@{socket.gethostname()}",
                f"--concurrency={concurrency}",
                f"--queues={','.join(QUEUES)}",
                "--without-gossip",
                "--without-mingle",
                f"--loglevel={telemetry.log_level}",
            ]
        )
    finally:
        presence.leave()


def _wait_for(broker: BrokerSettings) -> None:
    def say(state: RetryCallState) -> None:
        reason = state.outcome.exception() if state.outcome else None
        logger().warning("worker.broker_away", error=str(reason), attempt=state.attempt_number)

    # Started beside the broker, or before it: no reason to die.
    for attempt in Retrying(
        retry=retry_if_exception_type(TemporarilyUnavailable), wait=wait_fixed(2), before_sleep=say
    ):
        with attempt:
            declare_topology(broker)


def _serve_metrics(telemetry: TelemetrySettings) -> None:
    if telemetry.metrics_port is None:
        return
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        # Steps run in child processes; this adds their counters up.
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library leaves it untyped
    start_http_server(telemetry.metrics_port, registry=registry)


if __name__ == "__main__":
    main()
