"""llama-cpp-python's own server with the same model, in an environment of its own that is made at the first run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from benchmarks.subject import ROOT
from sluice.testing.service_process import free_port

HOME: Final = ROOT / ".sluice-peers" / "llm"
_PEER: Final = "llama-cpp-python[server]==0.3.36"
_READY_SECONDS: Final = 120


@contextmanager
def llama_cpp_server(model: Path, threads: int) -> Iterator[str]:
    """Where it listens."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = {
        "model": model, "model_alias": "default", "n_ctx": 4096, "n_threads": threads, "n_threads_batch": threads,
        "interrupt_requests": "false", "verbose": "false", "port": port,
    }  # fmt: skip
    command = [_installed(), "-m", "llama_cpp.server", *(str(x) for k, v in options.items() for x in (f"--{k}", v))]
    log = HOME / "peer.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _wait(process, f"{url}/v1/models", log)
            yield url
        finally:
            process.terminate()


def _installed() -> Path:
    python = HOME / "peer" / "bin" / "python"
    if not (HOME / "peer" / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", HOME / "peer"], check=True)
        # Built from source, unless pip has kept the wheel that this project's own environment was made with.
        subprocess.run([python, "-m", "pip", "install", "--quiet", _PEER], check=True)
        (HOME / "peer" / "installed").touch()
    return python


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise RuntimeError(f"llama_cpp.server did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
