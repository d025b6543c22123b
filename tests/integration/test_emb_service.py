"""EMB behind a real uvicorn: with a scripted model for what is hard to provoke, and with the real one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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

from services.emb import model_thread
from services.emb.app import create_app
from services.emb.backends.base import Vectors
from services.emb.catalog import WantedModel
from services.emb.metrics import EmbMetrics
from services.emb.queue import EmbeddingQueue
from sluice.embedding_client import HttpEmbeddingClient
from sluice.embedding_models.built_in import source_folder
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.errors import Invalid
from sluice.model_store.store import NotWhatWasAdded
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
        self.vector = (1.0, 0.0)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        return [TokenizedText([ord(c) for c in text], truncated=False) for text in texts]

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        texts = ["".join(map(chr, text.ids)) for text in batch]
        self.busy.set()
        self.gate.wait()
        self.batches.append(texts)
        if "poison" in texts:
            raise ArithmeticError("this text breaks the model")
        return np.array([self.vector] * len(texts), dtype=np.float32)


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
async def serving(
    load: Callable[[WantedModel], GatedModel], wishes: Wishes | None = None, **settings: Any
) -> AsyncIterator[Served]:
    config = EmbServiceSettings(port=free_port(), **settings)
    metrics = EmbMetrics()
    queue = EmbeddingQueue(load, wishes or Wishes(), config, metrics)
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
        async with serving(lambda _: model, **settings) as served:
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

    def load(_: WantedModel) -> GatedModel:
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
    def load(_: WantedModel) -> GatedModel:
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


# What clients get wrong, and what they may not do to each other.


def test_what_is_no_text_is_named_and_the_service_goes_on(service: ServiceProcess) -> None:
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"input": ["a"] * 10_000}, 422),
        ({"input": "x" * 1_000_000}, 413),
        ({"input": "\ud800 alone"}, 422),
        ({"input": ["fine", {"not": "text"}]}, 422),
        ({"input": None}, 422),
        ({"input": "a", "temperature": 1}, 422),
    ]
    for body, status in wrong:
        content = json.dumps({"model": "default", **body}).encode()
        answer = httpx.post(f"{service.url}/v1/embeddings", content=content, timeout=60)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), body
    assert "temperature" in answer.json()["detail"]
    assert post(service, input="still here").status_code == 200


def test_an_unknown_model_is_answered_with_the_known_ones(service: ServiceProcess) -> None:
    answer = post(service, model="another", input="a")

    assert answer.status_code == 404
    assert "'default'" in answer.json()["detail"]


def test_a_long_text_without_spaces_is_one_unknown_word_and_costs_nothing(service: ServiceProcess) -> None:
    answer = post(service, input="x" * 100_000)

    assert answer.status_code == 200
    assert answer.json()["usage"]["total_tokens"] < 256


def test_a_burst_of_thousands_is_served_or_refused_with_a_time_to_come_back() -> None:
    async def call(http: httpx.AsyncClient, number: int) -> httpx.Response:
        return await http.post("/v1/embeddings", json={"model": "default", "input": f"call {number} of many"})

    async def case(url: str) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
            return await asyncio.gather(*(call(http, number) for number in range(5_000)))

    with running_service("emb", queue_tokens=1024) as small:
        answers = asyncio.run(case(small.url))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
        assert post(small, input="after").status_code == 200


def test_a_list_is_refused_by_its_tokens_as_single_texts_are() -> None:
    async def case(served: Served) -> None:
        first = await served.occupy()
        second = asyncio.create_task(served.embed("x" * 900))
        await served.until_stats(requests=2, queued_tokens=908)
        as_list = await served.embed(*["y" * 40] * 4)
        assert as_list.status_code == 429
        served.model.gate.set()
        await asyncio.gather(first, second)
        # None of its texts went through the model.
        assert not any(text.startswith("y") for batch in served.model.batches for text in batch)

    with_gated_model(case, queue_tokens=1024)


def test_a_stopped_process_is_not_ready_and_goes_on_when_it_is_continued() -> None:
    with running_service("emb") as stopped:
        stopped.process.send_signal(signal.SIGSTOP)
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{stopped.url}/readyz", timeout=1)
        stopped.process.send_signal(signal.SIGCONT)
        assert httpx.get(f"{stopped.url}/readyz", timeout=30).status_code == 200
        assert post(stopped, input="awake").status_code == 200


def test_a_stuck_model_is_not_ready_while_health_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_thread, "_FRESH_BEAT_SECONDS", 0.2)

    async def case(served: Served) -> None:
        first = await served.occupy()
        await asyncio.sleep(0.4)
        assert (await served.http.get("/healthz")).status_code == 200
        answer = await served.http.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "The model's thread is stuck.")
        served.model.gate.set()
        assert (await first).status_code == 200

    with_gated_model(case)


def test_on_one_cpu_the_model_has_one_thread() -> None:
    with running_service("emb") as service:
        everywhere = httpx.get(f"{service.url}/stats").json()["threads"]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with running_service("emb") as service:
            assert httpx.get(f"{service.url}/stats").json()["threads"] == 1
    finally:
        os.sched_setaffinity(0, before)
    assert everywhere <= len(before)


def test_threads_do_not_grow_with_requests(service: ServiceProcess) -> None:
    def threads() -> int:
        status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("Threads:")[2].split()[0])

    async def calls() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
            body = {"model": "default", "input": ["some text"] * 4}
            answers = await asyncio.gather(*(http.post("/v1/embeddings", json=body) for _ in range(64)))
            assert {answer.status_code for answer in answers} == {200}

    asyncio.run(calls())
    first = threads()
    for _ in range(3):
        asyncio.run(calls())
    assert threads() <= first + 2


# One model takes another's place.


class Shelf:
    """Models to load, by name; each remembers its texts."""

    def __init__(self) -> None:
        self.models: dict[str, GatedModel] = {}
        self.wishes = Wishes()
        self.broken: set[str] = set()

    def load(self, wanted: WantedModel) -> GatedModel:
        if wanted.name in self.broken:
            raise NotWhatWasAdded(f"{wanted.name} has other bytes.")
        model = self.models.setdefault(wanted.name, GatedModel())
        model.version = wanted.name
        return model

    def wish(self, alias: str, name: str) -> None:
        self.wishes.models[alias] = model_named(name)
        self.wishes.changes += 1


def with_shelf(case: Callable[[Served, Shelf], Awaitable[None]]) -> None:
    shelf = Shelf()

    async def run() -> None:
        async with serving(shelf.load, shelf.wishes, models_poll_seconds=0.05) as served:
            await served.until_stats(state="ready")
            served.model = shelf.models["first"]
            try:
                await case(served, shelf)
            finally:
                for model in shelf.models.values():
                    model.gate.set()

    asyncio.run(run())


async def version_of(served: Served, alias: str = "default") -> str:
    body = {"model": alias, "input": "which?"}
    return str((await served.http.post("/v1/embeddings", json=body)).json()["model_version"])


def test_a_model_takes_anothers_place_while_requests_run_and_none_is_lost() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        first = await served.occupy()
        waiting = [asyncio.create_task(served.embed(f"before {n}")) for n in range(20)]
        await served.until_stats(requests=21)
        shelf.wish("default", "second")
        reloaded = await served.http.post("/v1/models:reload")
        assert reloaded.json()["aliases"]["default"] == {"outcome": "changed", "model": "second"}
        served.model.gate.set()
        answers = [await each for each in (first, *waiting)]
        assert {(answer.status_code, answer.json()["model_version"]) for answer in answers} == {(200, "first")}
        assert await version_of(served) == "second"

    with_shelf(case)


def test_a_change_of_the_models_folder_is_followed_without_being_told() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        shelf.wish("fast", "second")
        for _ in range(POLLS):
            cards = (await served.http.get("/v1/models")).json()["data"]
            if {card["id"] for card in cards} == {"default", "fast"}:
                break
            await asyncio.sleep(POLL_SECONDS)
        assert (await version_of(served), await version_of(served, "fast")) == ("first", "second")

    with_shelf(case)


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_in_its_place_and_says_why() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        shelf.broken.add("second")
        shelf.wish("default", "second")
        answer = await served.http.post("/v1/models:reload")
        assert (answer.status_code, answer.json()["code"]) == (409, "activation_failed")
        assert "second has other bytes" in answer.json()["detail"]
        assert await version_of(served) == "first"
        assert (await served.http.get("/readyz")).status_code == 200
        assert (await served.http.get("/stats")).json()["problems"] == {"default": "second has other bytes."}

    with_shelf(case)


def test_a_model_whose_vectors_are_none_is_not_activated() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        broken = GatedModel()
        broken.vector = (float("nan"), 0.0)
        shelf.models["second"] = broken
        shelf.wish("default", "second")
        answer = await served.http.post("/v1/models:reload")
        assert answer.status_code == 409
        assert await version_of(served) == "first"

    with_shelf(case)


def test_an_alias_that_is_dropped_is_not_found_any_more() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        shelf.wish("fast", "second")
        assert (await served.http.post("/v1/models:reload")).status_code == 200
        assert await version_of(served, "fast") == "second"
        del shelf.wishes.models["fast"]
        dropped = await served.http.post("/v1/models:reload")
        assert dropped.json()["aliases"]["fast"]["outcome"] == "dropped"
        assert (await served.http.post("/v1/embeddings", json={"model": "fast", "input": "a"})).status_code == 404

    with_shelf(case)
