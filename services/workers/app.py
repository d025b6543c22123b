"""The Celery application, and how a typed message becomes a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celery import Celery, Task
from celery.signals import worker_process_init

from sluice.broker import celery_app
from sluice.settings import BrokerSettings, TelemetrySettings
from sluice.telemetry import bind, configure_logging, forget
from sluice.wire.messages import Message, RunStep

M = TypeVar("M", bound=Message)


def create_app() -> Celery:
    """The application that `services.workers.main` runs, its tasks registered."""
    app = celery_app(BrokerSettings.from_environment())
    register(app, RunStep, _run_step)
    return app


def _run_step(message: RunStep) -> None:
    # Loaded by the child that runs the first step: the parent runs none, and what steps need takes 100 MB.
    from services.workers.tasks import run_step  # noqa: PLC0415 - see above

    run_step(message)


def register(app: Celery, message_type: type[M], handle: Callable[[M], None]) -> None:
    """Have `handle` called with each message of this type; one that does not fit the type is dead-lettered."""

    def run(task: Task[Any, Any], **body: Any) -> None:
        bind(request_id=task.request.get("request_id"), message_id=task.request.id)
        try:
            handle(message_type.model_validate(body))
        finally:
            forget()

    app.task(name=message_type.task_name, bind=True)(run)


@worker_process_init.connect  # type: ignore[untyped-decorator] # Celery has no types
def _configure_child(**_: Any) -> None:
    configure_logging("worker", TelemetrySettings.from_environment())
