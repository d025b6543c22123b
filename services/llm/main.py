"""Run LLM: `python -m services.llm.main`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import cast

import uvicorn

from services.llm.app import create_app
from services.llm.backends.base import CompletionBackend
from services.llm.metrics import LlmMetrics
from services.llm.scheduler import Scheduler
from sluice import telemetry
from sluice.settings import LlmServiceSettings, SettingsError, TelemetrySettings, exit_with_reason
from sluice.wire.asgi import Application

# Each module has `load()`; only the one that is configured is imported.
_BACKENDS = {"extractive": "services.llm.backends.extractive"}
_GRACE_SECONDS = 30

Load = Callable[[], CompletionBackend]


class DrainingServer(uvicorn.Server):
    """Answers what it has accepted before it stops; until then it refuses new work with 503."""

    def __init__(self, app: Application, settings: LlmServiceSettings, scheduler: Scheduler) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        super().__init__(config)
        self._scheduler = scheduler
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first SIGTERM; stop at once on the second, or on Ctrl-C."""
        if self._draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        telemetry.logger().info("service.draining")
        await self._scheduler.drain()
        self.should_exit = True


def main() -> None:
    """Serve until a signal; exit code 78 for wrong settings."""
    try:
        settings = LlmServiceSettings.from_environment()
        telemetry.configure_logging("llm", TelemetrySettings.from_environment())
        backend = _backend(settings)
    except SettingsError as error:
        exit_with_reason(error)
    metrics = LlmMetrics()
    scheduler = Scheduler(backend.slots, settings, metrics)
    DrainingServer(create_app(settings, backend, scheduler, metrics), settings, scheduler).run()


def _backend(settings: LlmServiceSettings) -> CompletionBackend:
    module = _BACKENDS.get(settings.backend)
    if module is None:
        raise SettingsError(f"SLUICE_LLM_BACKEND is {settings.backend!r}; it can be {', '.join(_BACKENDS)}.")
    load = cast("Load", import_module(module).load)
    return load()


if __name__ == "__main__":
    main()
