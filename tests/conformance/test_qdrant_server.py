"""Our Qdrant server as a process: what survives it, and what only a server does."""

from __future__ import annotations

import math
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from tests.conformance.qdrant_targets import (
    A_UUID,
    EmbeddedServer,
    Target,
    create_alias,
    dense_collection,
    embedded_server,
    field,
    ids_of,
    library,
    sparse_collection,
    target,
)

__all__ = ["embedded_server", "target"]


class TestEmbeddedServer:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
    def test_everything_acknowledged_is_there_after_the_process_ended(
        self, tmp_path: Path, how: signal.Signals
    ) -> None:
        server = EmbeddedServer(tmp_path)
        server.start()
        it = Target(server.client(), in_memory=False)
        name, words, gone, alias = library(it), sparse_collection(it), dense_collection(it), it.new_name("alias")
        it.client.create_payload_index(name, "lang", models.PayloadSchemaType.KEYWORD)
        it.client.update_collection_aliases([create_alias(alias, name)])
        it.client.upsert(
            words, [models.PointStruct(id=A_UUID, vector={"words": models.SparseVector(indices=[3], values=[1.0])})]
        )
        with it.refused(400):
            it.client.upsert(name, [models.PointStruct(id=77, vector={"unknown": [1.0, 0.0, 0.0, 0.0]})])
        it.client.delete(name, [0])
        it.client.delete_collection(gone)

        server.end(how)
        server.start()

        assert ids_of(it.client.scroll(alias)[0]) == [1, 2, 3, 4, 5]
        assert set(it.client.get_collection(name).payload_schema) == {"lang"}
        question = models.SparseVector(indices=[3], values=[1.0])
        assert ids_of(it.client.query_points(words, query=question, using="words").points) == [A_UUID]
        assert not it.client.collection_exists(gone)
        server.end()

    def test_a_large_collection_gets_its_graph_while_it_is_written_and_searched(self, tmp_path: Path) -> None:
        server = EmbeddedServer(tmp_path)
        server.start()
        it = Target(server.client(), in_memory=False)
        name = it.new_name()
        # 128 numbers: enough bytes to be worth a graph.
        it.client.create_collection(
            name, vectors_config={"dense": models.VectorParams(size=128, distance=models.Distance.COSINE)}
        )
        for start in range(0, 25_000, 1000):
            it.client.upsert(
                name, [models.PointStruct(id=n, vector={"dense": wave(n)}) for n in range(start, start + 1000)]
            )

        written = 25_000
        deadline = monotonic() + 240
        while not it.client.get_collection(name).indexed_vectors_count:
            it.client.upsert(name, [models.PointStruct(id=written, vector={"dense": wave(written)})])
            written += 1
            assert monotonic() < deadline, "no graph was built"
            sleep(0.02)

        assert it.client.count(name).count == written
        for probe in (17, 12_345, written - 1):
            assert it.client.query_points(name, query=wave(probe), using="dense", limit=1).points[0].id == probe
        server.end(signal.SIGKILL)
        server.start()
        assert it.client.count(name).count == written
        server.end()

    def test_many_writers_and_readers_at_once_lose_nothing(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        name = dense_collection(it)

        def write_and_read(writer: int) -> int:
            client = embedded_server.client()
            for n in range(20):
                client.upsert(name, [models.PointStruct(id=writer * 100 + n, vector={"dense": [1, n, writer, 0]})])
                client.query_points(name, query=[1.0, 0.0, 0.0, 0.0], using="dense")
            return 20

        with ThreadPoolExecutor(8) as pool:
            written = sum(pool.map(write_and_read, range(8)))

        assert it.client.count(name).count == written
        it.client.delete_collection(name)

    def test_a_body_that_is_no_request_is_refused_in_words(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        url = f"{embedded_server.url}/collections/{dense_collection(it)}/points"

        not_json = httpx.put(url, content=b"{", headers={"content-type": "application/json"})
        not_points = httpx.put(url, json={"points": [{"id": "abc", "vector": {"dense": [1, 0, 0, 0]}}]})
        no_limit = httpx.post(f"{url}/scroll", json={"limit": 0})

        assert (not_json.status_code, not_points.status_code, no_limit.status_code) == (400, 400, 422)
        assert "not a valid point ID" in not_points.json()["status"]["error"]

    def test_matching_a_boolean_is_refused_rather_than_answered_wrongly(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        name = library(it)

        with it.refused(400):
            it.client.count(name, models.Filter(must=[field("open", models.MatchValue(value=True))]))

    def test_health_version_and_metrics_can_be_read(self, embedded_server: EmbeddedServer) -> None:
        it = Target(embedded_server.client(), in_memory=False)
        name = library(it)

        assert it.client.info().version.startswith("1.")
        assert all(httpx.get(f"{embedded_server.url}/{path}").is_success for path in ("healthz", "livez", "readyz"))
        assert f'collection_points{{id="{name}"}} 6.0' in httpx.get(f"{embedded_server.url}/metrics").text

    @pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
    def test_with_a_key_set_nobody_reads_without_it(self, tmp_path: Path) -> None:
        server = EmbeddedServer(tmp_path, api_key="correct horse")
        server.start()

        assert server.client().get_collections().collections == []
        for offered in (None, "wrong"):
            with pytest.raises(UnexpectedResponse) as caught:
                QdrantClient(url=server.url, api_key=offered, check_compatibility=False).get_collections()
            assert caught.value.status_code == 401
        assert httpx.get(f"{server.url}/readyz").is_success
        server.end()


def wave(n: int) -> list[float]:
    """A vector that is unlike that of any other number."""
    return [math.sin((n + 1) * (k + 1) * 0.37 + k * k) for k in range(128)]
