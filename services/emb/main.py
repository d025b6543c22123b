"""Run EMB: `python -m services.emb.main`."""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType
from typing import Final

import uvicorn

from services.emb.app import create_app
from services.emb.catalog import Catalog
from services.emb.loading import loader
from services.emb.metrics import EmbMetrics
from services.emb.queue import EmbeddingQueue, State
from sluice import telemetry
from sluice.environment import SettingsError, exit_with_reason
from sluice.model_store.store import ModelStore
from sluice.settings import EmbServiceSettings, ModelStoreSettings, TelemetrySettings
from sluice.threads import usable_threads
from sluice.wire.asgi import Application

# For what was accepted, and then for the connections to close: less than a container is given to stop.
_DRAIN_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 5


class DrainingServer(uvicorn.Server):
    """Answers what it has accepted before it stops; until then it refuses new work with 503."""

    def __init__(
        self,
        app: Application,
        settings: EmbServiceSettings,
        queue: EmbeddingQueue,
        *,
        drain_seconds: float = _DRAIN_SECONDS,
    ) -> None:
        """What is not answered `drain_seconds` after the signal is given up: a stuck model is not waited for."""
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )
        super().__init__(config)
        self._queue = queue
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop at once on the second."""
        if self._draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        telemetry.logger().info("service.draining")
        try:
            await asyncio.wait_for(self._queue.drain(), self._drain_seconds)
        except TimeoutError:
            telemetry.logger().error("service.drain_gave_up", seconds=self._drain_seconds)
        self.should_exit = True


def main() -> None:
    """Serve until a signal; exit code 78 for wrong settings, 1 for a model that cannot be loaded or is stuck."""
    try:
        settings = EmbServiceSettings.from_environment()
        telemetry.configure_logging("emb", TelemetrySettings.from_environment())
        catalog = Catalog(settings, ModelStore(ModelStoreSettings.from_environment().folder))
    except SettingsError as error:
        exit_with_reason(error)
    # The tokenizers have threads of ours; those that they would start themselves take what the model needs.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    metrics = EmbMetrics()
    queue = EmbeddingQueue(loader(settings.threads or usable_threads()), catalog, settings, metrics)

    def give_up() -> None:
        server.should_exit = True

    server = DrainingServer(create_app(settings, queue, metrics, on_failure=give_up), settings, queue)
    server.run()
    if queue.state is State.FAILED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
