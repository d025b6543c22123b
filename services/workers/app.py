"""The Celery application, and how a typed message becomes a task."""

from __future__ import annotations

import gc
from typing import Any, Protocol, TypeVar

from celery import Celery, Task
from celery.signals import worker_before_create_process, worker_process_init

# Loaded by the parent, which runs no step: a child that takes a dead one's place is forked with all of it, instead of
# spending a second or two of a core on imports while a document waits.
from services.workers.tasks import run_step
from sluice.broker import celery_app
from sluice.kill_points import load_kill_points
from sluice.settings import BrokerSettings, TelemetrySettings
from sluice.telemetry import bind, configure_logging, continue_work, forget
from sluice.wire.messages import Message, RunStep

M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", bound=Message, contravariant=True)


def create_app() -> Celery:
    """The application that `services.workers.main` runs, its tasks registered."""
    app = celery_app(BrokerSettings.from_environment())
    app.conf.worker_consumer = "services.workers.consumer:Consumer"
    register(app, RunStep, run_step)
    return app


class Handler(Protocol[M_contra]):
    """What is done with a message; `redelivered` when the broker has handed it out before."""

    def __call__(self, message: M_contra, /, *, redelivered: bool) -> None:
        """Do it."""


def register(app: Celery, message_type: type[M], handle: Handler[M]) -> None:
    """Have `handle` called with each message of this type; one that does not fit the type is dead-lettered."""

    def run(task: Task[Any, Any], **body: Any) -> None:
        continue_work(task.request)
        bind(message_id=task.request.id)
        try:
            redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
            handle(message_type.model_validate(body), redelivered=redelivered)
        finally:
            forget()

    app.task(name=message_type.task_name, bind=True)(run)


@worker_before_create_process.connect  # type: ignore[untyped-decorator] # Celery has no types
def _share_memory(**_: Any) -> None:
    # What is loaded now stays shared with the children: the collector would write to every page of it.
    gc.freeze()


@worker_process_init.connect  # type: ignore[untyped-decorator] # Celery has no types
def _configure_child(**_: Any) -> None:
    configure_logging("worker", TelemetrySettings.from_environment())
    load_kill_points()
