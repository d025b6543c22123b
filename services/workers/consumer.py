"""Celery's consumer, made to give up what it cannot read instead of losing it or dying of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

from sluice.telemetry import logger

log = logger()


class Consumer(CeleryConsumer):  # type: ignore[misc] # Celery has no types here
    """Rejects unreadable messages, so that the broker makes dead letters of them.

    Celery 5.7 acknowledges, and so drops, a message that cannot be decoded; and one without an id, or of an unknown
    task with a body of another shape, raises in its event loop, ends the worker, comes back and ends the next.
    """

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body or content type that cannot be decoded."""
        self._reject(message, exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002 - Celery's signature
        """A task that this version does not have."""
        self._reject(message, exc)

    def create_task_handler(self, *arguments: Any, **named: Any) -> Callable[[Any], None]:
        """What is called with each message."""
        receive = super().create_task_handler(*arguments, **named)

        def on_task_received(message: Any) -> None:
            try:
                receive(message)
            except (*self.connection_errors, *self.channel_errors):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a message may break must not end the worker
                self._reject(message, error)

        return on_task_received

    def _reject(self, message: Any, error: Exception) -> None:
        log.error("message.rejected", error=type(error).__name__, detail=str(error)[:200])
        if not message.acknowledged:
            message.reject_log_error(log, self.connection_errors)
