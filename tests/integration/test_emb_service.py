"""EMB behind a real uvicorn: with a scripted model for what is hard to provoke, and with the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from sentence_transformers import SentenceTransformer

from services.emb.app import create_app
from services.emb.backends.base import Vectors
from services.emb.catalog import WantedModel
from services.emb.metrics import EmbMetrics
from services.emb.queue import EmbeddingQueue
from sluice.embedding_client import HttpEmbeddingClient
from sluice.embedding_models.built_in import source_folder
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.errors import Invalid
from sluice.settings import EmbeddingClientSettings, EmbServiceSettings
from sluice.testing.service_process import ServiceProcess, free_port, running_service
from sluice.wire.embeddings import InputType, vector_from_base64

POLL_SECONDS = 0.01
POLLS = 3000


class GatedModel:
    """Embeds only while its gate is open, and remembers what it was given. A token is a character."""

    version, form, dimension, max_tokens, tokenizer_json = "v1", "fake", 2, 10_000, b"{}"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()
        self.batches: list[list[str]] = []

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        return [TokenizedText([ord(c) for c in text], truncated=False) for text in texts]

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        texts = ["".join(map(chr, text.ids)) for text in batch]
        self.busy.set()
        self.gate.wait()
        self.batches.append(texts)
        if "poison" in texts:
            raise ArithmeticError("this text breaks the model")
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)


def model_named(name: str) -> WantedModel:
    return WantedModel(name, name, "fake", 0, None, verified=Path)


class Wishes:
    """What the aliases are to mean, as a test changes it."""

    def __init__(self) -> None:
        self.models = {"default": model_named("first")}
        self.changes = 0

    def wanted(self) -> dict[str, WantedModel]:
        return dict(self.models)

    def changed_at(self) -> int:
        return self.changes


class Served:
    """A client of a service with a gated model."""

    def __init__(self, http: httpx.AsyncClient, model: GatedModel, queue: EmbeddingQueue) -> None:
        self.http, self.model, self.queue = http, model, queue

    async def embed(self, *texts: str, input_type: str = "document") -> httpx.Response:
        body = {"model": "default", "input": list(texts), "input_type": input_type}
        return await self.http.post("/v1/embeddings", json=body)

    async def occupy(self) -> asyncio.Task[httpx.Response]:
        """Keep the model busy until its gate opens."""
        self.model.gate.clear()
        self.model.busy.clear()
        first = asyncio.create_task(self.embed("occupied"))
        await asyncio.to_thread(self.model.busy.wait)
        return first

    async def until_stats(self, **expected: object) -> None:
        await self.until_stats_of(self.http, **expected)

    @staticmethod
    async def until_stats_of(http: httpx.AsyncClient, **expected: object) -> None:
        for _ in range(POLLS):
            stats = (await http.get("/stats")).json()
            if expected.items() <= stats.items():
                return
            await asyncio.sleep(POLL_SECONDS)
        pytest.fail(f"{stats} never became {expected}")


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(POLLS):
        if condition():
            return
        await asyncio.sleep(POLL_SECONDS)
    pytest.fail("the condition never came true")


@asynccontextmanager
async def serving(load: Callable[[], GatedModel], **settings: Any) -> AsyncIterator[Served]:
    config = EmbServiceSettings(port=free_port(), **settings)
    metrics = EmbMetrics()
    queue = EmbeddingQueue(lambda _: load(), Wishes(), config, metrics)
    app = create_app(config, queue, metrics, on_failure=lambda: None)
    server = uvicorn.Server(uvicorn.Config(app, host=config.host, port=config.port, log_config=None))
    running = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://{config.host}:{config.port}", timeout=60) as http:
        await until(lambda: server.started)
        yield Served(http, GatedModel(), queue)
    server.should_exit = True
    await running


def with_gated_model(case: Callable[[Served], Awaitable[None]], **settings: Any) -> None:
    """Run a case against a service that has loaded its model."""
    model = GatedModel()

    async def run() -> None:
        async with serving(lambda: model, **settings) as served:
            served.model = model
            await served.until_stats(state="ready")
            model.batches.clear()
            try:
                await case(served)
            finally:
                model.gate.set()

    asyncio.run(run())


def test_work_of_a_client_that_left_is_dropped_and_its_place_is_free() -> None:
    async def case(served: Served) -> None:
        first = await served.occupy()
        leaving = asyncio.create_task(served.embed("nobody waits for this"))
        await served.until_stats(requests=2)
        leaving.cancel()
        await served.until_stats(requests=1, queued_tokens=len("occupied"))
        served.model.gate.set()
        assert (await first).status_code == 200
        assert (await served.embed("after")).status_code == 200
        assert served.model.batches == [["occupied"], ["after"]]

    with_gated_model(case)


def test_a_full_queue_refuses_at_once_says_when_to_come_back_and_recovers() -> None:
    async def case(served: Served) -> None:
        first = await served.occupy()
        second = asyncio.create_task(served.embed("x" * 1000))
        await served.until_stats(requests=2, queued_tokens=1008)
        answers = await asyncio.gather(*(served.embed("y" * 100) for _ in range(5)))
        assert [answer.status_code for answer in answers] == [429] * 5
        assert int(answers[0].headers["retry-after"]) >= 1
        assert answers[0].json()["error"]["type"] == "rate_limit_error"
        served.model.gate.set()
        assert [(await each).status_code for each in (first, second)] == [200, 200]
        assert (await served.embed("y" * 100)).status_code == 200

    with_gated_model(case, queue_tokens=1024)


def test_a_request_that_can_never_fit_is_too_large_even_when_nothing_waits() -> None:
    async def case(served: Served) -> None:
        answer = await served.embed(*["x" * 1000] * 5)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    with_gated_model(case, queue_tokens=1024)


def test_a_request_that_waited_too_long_is_dropped() -> None:
    async def case(served: Served) -> None:
        first = await served.occupy()
        late = await served.embed("too late")
        assert (late.status_code, late.json()["code"]) == (503, "queue_deadline")
        assert "retry-after" in late.headers
        served.model.gate.set()
        # The model had begun with this one, so its deadline is over.
        assert (await first).status_code == 200
        assert served.model.batches == [["occupied"]]

    with_gated_model(case, queue_seconds=0.3)


def test_a_question_overtakes_waiting_documents() -> None:
    async def case(served: Served) -> None:
        first = await served.occupy()
        documents = asyncio.create_task(served.embed("a document"))
        await served.until_stats(requests=2)
        query = asyncio.create_task(served.embed("a query", input_type="query"))
        await served.until_stats(requests=3)
        served.model.gate.set()
        await asyncio.gather(first, documents, query)
        assert served.model.batches == [["occupied"], ["a query"], ["a document"]]

    with_gated_model(case)


def test_a_text_that_breaks_the_model_fails_alone() -> None:
    async def case(served: Served) -> None:
        broken = await served.embed("poison")
        assert broken.status_code == 500
        assert "breaks" not in broken.text
        assert (await served.embed("wholesome")).status_code == 200

    with_gated_model(case)


def test_draining_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    async def case(served: Served) -> None:
        first = await served.occupy()
        draining = asyncio.create_task(served.queue.drain())
        await served.until_stats(state="draining")
        assert (await served.embed("new")).status_code == 503
        assert (await served.http.get("/readyz")).status_code == 503
        assert (await served.http.get("/healthz")).status_code == 200
        assert not draining.done()
        served.model.gate.set()
        assert (await first).status_code == 200
        await draining

    with_gated_model(case)


def test_while_the_model_is_loaded_the_service_lives_but_is_not_ready() -> None:
    loaded = threading.Event()

    def load() -> GatedModel:
        loaded.wait()
        return GatedModel()

    async def case() -> None:
        async with serving(load) as served:
            assert (await served.http.get("/healthz")).status_code == 200
            assert (await served.http.get("/readyz")).status_code == 503
            early = await served.embed("early")
            assert (early.status_code, early.json()["code"]) == (503, "loading")
            loaded.set()
            await served.until_stats(state="ready")
            assert (await served.http.get("/readyz")).status_code == 200

    asyncio.run(case())


def test_a_model_that_cannot_be_loaded_is_reported() -> None:
    def load() -> GatedModel:
        raise OSError("the weights are gone")

    async def case() -> None:
        async with serving(load) as served:
            await served.until_stats(state="failed")
            answer = await served.http.get("/readyz")
            assert answer.status_code == 503
            assert "could not be loaded" in answer.json()["detail"]

    asyncio.run(case())


def test_a_burst_is_served_or_refused_and_never_fails() -> None:
    async def case(served: Served) -> None:
        answers = await asyncio.gather(*(served.embed("x" * 50) for _ in range(300)))
        assert {answer.status_code for answer in answers} <= {200, 429}
        assert 200 in {answer.status_code for answer in answers}
        await served.until_stats(requests=0, queued_tokens=0)

    with_gated_model(case, queue_tokens=2000)


# The real model, in a process of its own.


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("emb") as running:
        yield running


@pytest.fixture(scope="module")
def library() -> SentenceTransformer:
    return SentenceTransformer(str(source_folder()), device="cpu", local_files_only=True)


def post(service: ServiceProcess, **body: Any) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/embeddings", json={"model": "default", **body}, timeout=60)


def vectors(service: ServiceProcess, *texts: str) -> Vectors:
    answer = post(service, input=list(texts))
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]], dtype=np.float32)


TEXTS = [f"Sentence number {n} about locks, sluices and the water behind them. " * (1 + n % 7) for n in range(32)]


def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(service: ServiceProcess) -> None:
    alone = vectors(service, TEXTS[0])[0]
    among_many = vectors(service, *TEXTS)[0]
    beside_a_long_one = vectors(service, TEXTS[0], "water " * 500)[0]
    assert alone @ among_many >= 0.9999
    assert alone @ beside_a_long_one >= 0.9999


def test_vectors_are_nearly_those_of_the_library(service: ServiceProcess, library: SentenceTransformer) -> None:
    expected = np.asarray(library.encode(TEXTS, normalize_embeddings=True))
    assert (vectors(service, *TEXTS) * expected).sum(axis=1).min() >= 0.99


def test_the_torch_backend_gives_the_vectors_of_the_library(library: SentenceTransformer) -> None:
    texts = [*TEXTS, "Вода поднимается в шлюзе.", "word " * 1000, "¿Ünïcödé? 🙂"]
    expected = np.asarray(library.encode(texts, normalize_embeddings=True))
    with running_service("emb", backend="sentence_transformers") as reference:
        assert (vectors(reference, *texts) * expected).sum(axis=1).min() >= 0.9999


def test_base64_and_float_are_the_same_vector(service: ServiceProcess) -> None:
    as_float = post(service, input="water").json()["data"][0]["embedding"]
    as_base64 = post(service, input="water", encoding_format="base64").json()["data"][0]["embedding"]
    assert vector_from_base64(as_base64) == pytest.approx(as_float, abs=1e-6)
    assert np.linalg.norm(as_float) == pytest.approx(1.0, abs=1e-5)


def test_a_text_longer_than_the_model_reads_is_cut_and_named(service: ServiceProcess) -> None:
    answer = post(service, input=["short", "word " * 1000]).json()
    assert answer["truncated"] == [1]
    assert answer["usage"]["total_tokens"] == 3 + 256


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"input": [1, 2, 3]}, 400, "malformed"),
        ({"input": [[1, 2], [3]]}, 400, "malformed"),
        ({"model": "another", "input": "a"}, 404, "model_not_found"),
        ({"input": "x" * 100_001}, 413, "too_large"),
        ({"input": []}, 422, "invalid"),
        ({"input": ["a", ""]}, 422, "invalid"),
        ({"input": "a", "dimensions": 128}, 422, "invalid"),
        ({"input": "a", "encoding_format": "hex"}, 422, "invalid"),
        ({}, 422, "invalid"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    service: ServiceProcess, body: dict[str, Any], status: int, code: str
) -> None:
    answer = post(service, **body)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["error"]["message"] == problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_malformed(service: ServiceProcess, body: bytes) -> None:
    answer = httpx.post(f"{service.url}/v1/embeddings", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_the_right_dimension_may_be_asked_for(service: ServiceProcess) -> None:
    assert post(service, input="a", dimensions=384).status_code == 200


def test_the_tokenizer_is_sent_once_for_each_version(service: ServiceProcess) -> None:
    url = f"{service.url}/v1/models/default/tokenizer"
    first = httpx.get(url)
    version = httpx.get(f"{service.url}/v1/models").json()["data"][0]["version"]
    assert first.headers["etag"] == f'"{version}"'
    assert httpx.get(url, headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert httpx.get(f"{service.url}/v1/models/another/tokenizer").status_code == 404


def test_a_text_that_is_refused_is_invalid_to_the_client_and_not_worth_a_retry(service: ServiceProcess) -> None:
    with HttpEmbeddingClient(EmbeddingClientSettings(url=service.url)) as client, pytest.raises(Invalid):
        client.embed(["x" * 200_000], input_type="document")


def test_the_id_of_a_request_is_echoed_when_it_is_well_formed_and_replaced_when_not(service: ServiceProcess) -> None:
    url = f"{service.url}/v1/models"
    assert httpx.get(url, headers={"x-request-id": "abcdef-123"}).headers["x-request-id"] == "abcdef-123"
    assert httpx.get(url, headers={"x-request-id": "<script>"}).headers["x-request-id"] != "<script>"


def test_metrics_tell_what_was_done(service: ServiceProcess) -> None:
    post(service, input="counted", input_type="query")
    metrics = httpx.get(f"{service.url}/metrics").text
    assert 'emb_tokens_total{input_type="query"}' in metrics
    assert 'emb_requests_total{endpoint="embeddings",status="200"}' in metrics


def test_health_is_answered_while_the_model_works(service: ServiceProcess) -> None:
    async def case() -> int:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
            body = {"model": "default", "input": ["water " * 250] * 32}
            embedding = asyncio.create_task(http.post("/v1/embeddings", json=body))
            answered = 0
            while not embedding.done():
                answered += (await http.get("/healthz")).is_success
            assert (await embedding).status_code == 200
            return answered

    assert asyncio.run(case()) > 1


def test_sigterm_lets_the_service_finish_what_it_has_accepted() -> None:
    async def case(service: ServiceProcess) -> int:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
            body = {"model": "default", "input": ["water " * 250] * 32}
            embedding = asyncio.create_task(http.post("/v1/embeddings", json=body))
            await Served.until_stats_of(http, requests=1)
            service.terminate()
            return (await embedding).status_code

    with running_service("emb") as service:
        assert asyncio.run(case(service)) == 200
        assert service.exit_code() == 0
