"""infinity-emb with the same model, in an environment of its own that is made at the first run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from benchmarks.emb_clients import EmbeddingServer
from benchmarks.subject import ROOT
from sluice.embedding_models.built_in import source_folder
from sluice.testing.service_process import free_port

_HOME = ROOT / ".sluice-peers" / "infinity"
_PACKAGES = (
    "infinity-emb[server,torch]==0.0.77", "transformers==4.48.3", "optimum==1.27.0", "click==8.1.8", "typer==0.12.5",
    "torch==2.13.0",
)  # fmt: skip
_READY_SECONDS = 120


class PeerMissingError(Exception):
    """The peer cannot be installed here."""


@contextmanager
def infinity(threads: int) -> Iterator[EmbeddingServer]:
    """The peer, serving; `PeerMissingError` says why not."""
    program = _installed()
    port, folder = free_port(), source_folder()
    command = [
        str(program), "v2", "--model-id", str(folder), "--served-model-name", "minilm", "--engine", "torch",
        "--device", "cpu", "--batch-size", "32", "--no-bettertransformer", "--port", str(port), "--host", "127.0.0.1",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": str(threads)}
    log = _HOME / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **offline}, stdout=output, stderr=output)
        try:
            _wait(process, f"http://127.0.0.1:{port}")
            yield EmbeddingServer(f"http://127.0.0.1:{port}", "minilm", path="/embeddings")
        finally:
            process.terminate()
            process.wait()


def _installed() -> os.PathLike[str]:
    program = _HOME / "bin" / "infinity_emb"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_HOME)], check=True)
        pip = [str(_HOME / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *_PACKAGES]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            program.unlink(missing_ok=True)
            raise PeerMissingError(f"pip could not install it: {done.stderr.strip().splitlines()[-1]}")
    return program


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.5)
    raise PeerMissingError(f"it did not start; see {_HOME / 'log'}")
