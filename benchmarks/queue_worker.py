"""A Celery worker whose steps do nothing: `python -m benchmarks.queue_worker plain|ours COMPLETIONS --concurrency N`.

Each run appends a line to COMPLETIONS: when it began, in seconds since the epoch, and when its message was made.
`plain` is Celery as it comes: a classic queue, acknowledged early, prefetch 4, no publisher confirms.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from celery import Celery
from kombu.entity import Queue

from sluice.broker import URGENT
from sluice.settings import BrokerSettings

PLAIN_QUEUE = "bench.plain"


def plain_app(broker: BrokerSettings) -> Celery:
    """Celery with what it has by default, and no result backend."""
    app = Celery("plain", broker=broker.url.get_secret_value(), set_as_current=False)
    app.conf.update(
        task_queues=[Queue(PLAIN_QUEUE, routing_key=PLAIN_QUEUE)],
        task_default_queue=PLAIN_QUEUE,
        task_ignore_result=True,
        worker_prefetch_multiplier=4,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
    )
    return app


def main() -> None:
    """Consume until told to stop."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("variant", choices=["plain", "ours"])
    arguments.add_argument("completions")
    arguments.add_argument("--concurrency", type=int, default=2)
    asked = arguments.parse_args()
    completions = os.open(asked.completions, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(made: float) -> None:
        os.write(completions, f"{time.time():.6f} {made:.6f}\n".encode())

    broker = BrokerSettings.from_environment()
    app, queue = (plain_app(broker), PLAIN_QUEUE) if asked.variant == "plain" else (_our_app(note), URGENT)
    if asked.variant == "plain":
        app.task(name="bench.nothing")(note)
    app.worker_main(
        ["worker", f"--concurrency={asked.concurrency}", f"--queues={queue}", "--without-gossip", "--without-mingle",
         "--loglevel=WARNING"]
    )  # fmt: skip


def _our_app(note: Any) -> Celery:
    from services.workers.app import create_app  # noqa: PLC0415 - plain Celery pays for nothing of ours
    from services.workers.steps import STEPS  # noqa: PLC0415 - likewise
    from sluice.jobs import claims  # noqa: PLC0415 - likewise

    def nothing(it: Any, claim: claims.Claim, _: Any) -> None:
        note(claim.options["made"])
        claims.finish_at_once(it.sessions, claim)

    STEPS["nothing"] = nothing
    return create_app()


if __name__ == "__main__":
    main()
