"""What the conformance suite talks to: our server as a process, the client's own in-memory form, any given URL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from uuid import UUID, uuid4

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

URL_VARIABLE = "SLUICE_TEST_QDRANT_URL"
_START_SECONDS = 60

DENSE = models.VectorParams(size=4, distance=models.Distance.COSINE)
IDF = models.SparseVectorParams(modifier=models.Modifier.IDF)
A_UUID = "5c4bd6ea-93d8-4f1a-b62a-3f1e1a52f0ef"


class EmbeddedServer:
    """Our server as a real process on a free port, which can be ended and started again on the same data."""

    def __init__(self, data: Path, api_key: str | None = None) -> None:
        self._data = data
        self._api_key = api_key
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and return when it is ready."""
        command = [sys.executable, "-m", "infra.embedded.qdrant_server"]
        key = {"QDRANT__SERVICE__API_KEY": self._api_key} if self._api_key else {}
        self._process = subprocess.Popen(
            [*command, "--port", str(self._port), "--data", str(self._data)], env=os.environ | key
        )
        deadline = monotonic() + _START_SECONDS
        while not self._ready():
            assert self._process.poll() is None, f"the server ended with exit code {self._process.returncode}"
            assert monotonic() < deadline, "the server was not ready in time"
            sleep(0.05)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal and wait until the process is gone."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def client(self) -> QdrantClient:
        """A client as the platform makes it."""
        return QdrantClient(url=self.url, api_key=self._api_key, timeout=30)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").is_success
        except httpx.TransportError:
            return False


@dataclass(frozen=True)
class Target:
    """One implementation of Qdrant, and what of Qdrant it is known not to do."""

    client: QdrantClient
    in_memory: bool

    @contextmanager
    def refused(self, status: int) -> Iterator[None]:
        """The block is refused: with this HTTP status, or with a ValueError by the in-memory form."""
        if self.in_memory:
            with pytest.raises(ValueError, match=r".+"):
                yield
            return
        with pytest.raises(UnexpectedResponse) as caught:
            yield
        assert caught.value.status_code == status
        # Qdrant's own shape of an error.
        assert caught.value.structured()["status"]["error"]

    def new_name(self, kind: str = "collection") -> str:
        """A name that no other test has."""
        return f"sluice_test_{kind}_{uuid4().hex}"


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for all tests that do not end it."""
    server = EmbeddedServer(tmp_path_factory.mktemp("qdrant"))
    server.start()
    yield server
    server.end()


@pytest.fixture(params=["embedded", "memory", *(["url"] if URL_VARIABLE in os.environ else [])])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Each implementation in turn; collections made by the test are gone afterwards."""
    client = _client(request)
    before = {one.name for one in client.get_collections().collections}
    # The in-memory form warns that it has no payload indexes.
    with warnings.catch_warnings():
        if request.param == "memory":
            warnings.simplefilter("ignore", UserWarning)
        yield Target(client, in_memory=request.param == "memory")
    for one in client.get_collections().collections:
        if one.name not in before:
            client.delete_collection(one.name)
    client.close()


def _client(request: pytest.FixtureRequest) -> QdrantClient:
    if request.param == "memory":
        return QdrantClient(":memory:")
    if request.param == "embedded":
        server: EmbeddedServer = request.getfixturevalue("embedded_server")
        return server.client()
    return QdrantClient(url=os.environ[URL_VARIABLE], timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def dense_collection(it: Target) -> str:
    name = it.new_name()
    it.client.create_collection(name, vectors_config={"dense": DENSE})
    return name


def sparse_collection(it: Target) -> str:
    name = it.new_name()
    it.client.create_collection(name, vectors_config={}, sparse_vectors_config={"words": IDF, "grams": IDF})
    return name


def library(it: Target) -> str:
    """Six documents with every kind of field that a filter may look at."""
    name = dense_collection(it)
    rows = [
        {"tenant": "a", "lang": "en", "page": 1, "tags": ["law", "old"], "at": "2024-01-01T00:00:00Z", "open": True},
        {"tenant": "a", "lang": "ru", "page": 2, "tags": ["law"], "at": "2024-06-01T12:00:00Z", "open": False},
        {"tenant": "a", "lang": "en", "page": 3, "tags": [], "at": "2025-01-01T00:00:00Z"},
        {"tenant": "b", "lang": "en", "page": 4, "tags": ["tax"], "at": "2025-06-01T00:00:00+03:00"},
        {"tenant": "b", "lang": "de", "page": None, "tags": ["tax", "old"]},
        {"tenant": "b", "parts": [{"kind": "table", "rows": 3}, {"kind": "list", "rows": 9}]},
    ]
    points = [models.PointStruct(id=n, vector={"dense": [1, n, 0, 0]}, payload=row) for n, row in enumerate(rows)]
    it.client.upsert(name, points, wait=True)
    return name


def field(key: str, match: models.Match) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=match)


def ids_of(points: Sequence[models.Record | models.ScoredPoint]) -> list[int | str | UUID]:
    return [point.id for point in points]


def create_alias(alias: str, collection: str) -> models.CreateAliasOperation:
    return models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
