"""Run EMB: `python -m services.emb.main`."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn

from services.emb.app import create_app
from services.emb.backends.base import EmbeddingBackend
from services.emb.metrics import EmbMetrics
from services.emb.model_folder import model_folder
from services.emb.queue import EmbeddingQueue, State
from services.emb.threads import usable_threads
from sluice import telemetry
from sluice.settings import EmbServiceSettings, SettingsError, TelemetrySettings, exit_with_reason
from sluice.wire.asgi import Application

# Each module has `load(folder, threads)`. It is imported by the model's thread, because torch takes seconds.
_BACKENDS = {"sentence_transformers": "services.emb.backends.sentence_transformers"}
_GRACE_SECONDS = 30

Load = Callable[[Path, int], EmbeddingBackend]


class DrainingServer(uvicorn.Server):
    """Answers what it has accepted before it stops; until then it refuses new work with 503."""

    def __init__(self, app: Application, settings: EmbServiceSettings, queue: EmbeddingQueue) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        super().__init__(config)
        self._queue = queue
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop at once on the second."""
        if self._draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        telemetry.logger().info("service.draining")
        await self._queue.drain()
        self.should_exit = True


def main() -> None:
    """Serve until a signal; exit code 78 for wrong settings, 1 for a model that cannot be loaded."""
    try:
        settings = EmbServiceSettings.from_environment()
        telemetry.configure_logging("emb", TelemetrySettings.from_environment())
        load = _load(settings)
    except SettingsError as error:
        exit_with_reason(error)
    metrics = EmbMetrics()
    queue = EmbeddingQueue(load, settings, metrics)

    def give_up() -> None:
        server.should_exit = True

    server = DrainingServer(create_app(settings, queue, metrics, on_failure=give_up), settings, queue)
    server.run()
    if queue.state is State.FAILED:
        raise SystemExit(1)


def _load(settings: EmbServiceSettings) -> Callable[[], EmbeddingBackend]:
    module = _BACKENDS.get(settings.backend)
    if module is None:
        raise SettingsError(f"SLUICE_EMB_BACKEND is {settings.backend!r}; it can be {', '.join(_BACKENDS)}.")
    folder = model_folder(settings)
    threads = settings.threads or usable_threads()
    # Read by the libraries when they are imported: never look for a model on the network, never fork a thread pool
    # beside ours.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    return partial(_load_backend, module, folder, threads)


def _load_backend(module: str, folder: Path, threads: int) -> EmbeddingBackend:
    load = cast("Load", import_module(module).load)
    return load(folder, threads)


if __name__ == "__main__":
    main()
