"""`python -m infra.embedded.qdrant_server --port 6333 --data FOLDER`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import uvicorn

from infra.embedded.qdrant_server.app import create_app
from infra.embedded.qdrant_server.catalog import Catalog
from sluice.settings import TelemetrySettings
from sluice.telemetry import configure_logging


def main() -> None:
    """Serve the data folder until SIGTERM."""
    parser = argparse.ArgumentParser(prog="qdrant_server", description="Qdrant's REST API on Qdrant's engine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6333)
    parser.add_argument("--data", type=Path, required=True, help="folder of the collections; made when missing")
    chosen = parser.parse_args()
    configure_logging("qdrant", TelemetrySettings.from_environment())
    # Qdrant's own variable: a key on the command line could be read by every user of the machine.
    api_key = os.environ.get("QDRANT__SERVICE__API_KEY") or None
    app = create_app(Catalog(chosen.data), api_key)
    uvicorn.run(app, host=chosen.host, port=chosen.port, log_config=None, access_log=False)


if __name__ == "__main__":
    main()
