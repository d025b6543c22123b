"""What goes on behind the requests: the log is kept short, and large collections get their graph."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Final

import qdrant_edge as engine

from infra.embedded.orphans import dying_with_parent
from infra.embedded.qdrant_server.catalog import Catalog
from infra.embedded.qdrant_server.collection import Collection
from infra.embedded.qdrant_server.refusals import Refusal

FLUSH_SECONDS: Final = 5.0
_log = logging.getLogger(__name__)


class Housekeeping:
    """A thread that flushes every few seconds and optimizes, one collection at a time, when one needs it."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, together with a build that may be running."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            for collection in self._catalog.collections():
                collection.flush()
                if collection.needs_optimizing():
                    self._optimize(collection)

    def _optimize(self, collection: Collection) -> None:
        """Build the graph in another process: the engine holds the interpreter's lock for seconds while it builds."""
        try:
            copy = collection.branch()
        except Refusal:
            return  # deleted a moment ago
        try:
            if self._built(copy):
                self._catalog.adopt(collection, copy)
                _log.info("optimized collection %s", collection.name)
                return
        except Refusal as refusal:
            _log.info("collection went away while it was optimized: %s", refusal)
        collection.abandon(copy)

    def _built(self, folder: Path) -> bool:
        command = dying_with_parent([sys.executable, "-m", "infra.embedded.qdrant_server.housekeeping", str(folder)])
        with subprocess.Popen(command) as build:
            while build.poll() is None:
                if self._stopping.wait(0.1):
                    build.kill()
                    return False
        if build.returncode != 0:
            _log.error("optimizing %s ended with exit code %s; searches stay exact", folder.name, build.returncode)
        return build.returncode == 0


def _build(folder: str) -> None:
    os.nice(10)
    shard = engine.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    _build(sys.argv[1])
