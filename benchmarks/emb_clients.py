"""Clients of an OpenAI-shaped embeddings server, and what they noticed."""

from __future__ import annotations

import base64
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

import httpx
import numpy as np
from numpy.typing import NDArray

_WAIT_SECONDS = 300


class EmbeddingServer:
    """A server at a URL that embeds with one model."""

    def __init__(self, url: str, model: str, *, path: str = "/v1/embeddings") -> None:
        self.url = url
        self._model = model
        self._path = path
        self._http = httpx.Client(base_url=url, timeout=_WAIT_SECONDS)

    def embed(self, texts: Sequence[str], **more: str) -> NDArray[np.float32]:
        """The vectors of one request."""
        body = {"model": self._model, "input": list(texts), "encoding_format": "base64", **more}
        response = self._http.post(self._path, json=body).raise_for_status()
        rows = [base64.b64decode(item["embedding"]) for item in response.json()["data"]]
        return np.stack([np.frombuffer(row, dtype="<f4") for row in rows])

    def embed_all(self, texts: Sequence[str], *, size: int, clients: int) -> tuple[NDArray[np.float32], float]:
        """All vectors, by as many clients at once, each with lists of `size`; and the seconds that it took."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            vectors = np.vstack(list(pool.map(self.embed, _lists(texts, size))))
        return vectors, time.perf_counter() - began

    def reload(self) -> None:
        """Let it load what the models folder says."""
        self._http.post("/v1/models:reload").raise_for_status()

    def question_milliseconds(self, rounds: int, pause: float = 0.0) -> list[float]:
        """How long short questions take, one after the other."""
        taken = []
        for number in range(rounds):
            began = time.perf_counter()
            self.embed([f"how do I install package number {number}"], input_type="query")
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(pause)
        return taken

    def health_milliseconds(self, rounds: int, pause: float) -> list[float]:
        """How long `/healthz` takes."""
        taken = []
        for _ in range(rounds):
            began = time.perf_counter()
            self._http.get("/healthz").raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(pause)
        return taken

    @contextmanager
    def saturated(self, texts: Sequence[str], *, clients: int, size: int) -> Iterator[None]:
        """Bulk work all the time while inside."""
        over = threading.Event()

        def keep_busy() -> None:
            while not over.is_set():
                for some in _lists(texts, size):
                    if over.is_set():
                        return
                    self.embed(some)

        with ThreadPoolExecutor(clients) as pool:
            workers = [pool.submit(keep_busy) for _ in range(clients)]
            time.sleep(1)
            try:
                yield
            finally:
                over.set()
            for worker in workers:
                worker.result()


def _lists(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(texts)
    while some := list(islice(rest, size)):
        yield some


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not pass."""
    return statistics.quantiles(values, n=100)[percent - 1]
