"""What EMB does with requests that it cannot serve at once.

The numbers are those of the complaints about its peers in `docs/operations.md`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np

from services.emb.backends.base import Vectors
from services.emb.catalog import WantedModel
from sluice.embedding_models.tokenizing import TokenizedText
from tests.integration.emb_served import GatedModel, Served, Wishes, serving, with_gated_model


def test_work_of_a_client_that_left_is_dropped_and_its_place_is_free() -> None:
    """Complaints 1, 3 and 29."""

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
    """Complaints 15 and 16."""

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
    """Complaint 17."""

    async def case(served: Served) -> None:
        answer = await served.embed(*["x" * 1000] * 5)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    with_gated_model(case, queue_tokens=1024)


def test_a_request_that_waited_too_long_is_dropped() -> None:
    """Complaint 31."""

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
        first = await served.occupy()
        beside = [asyncio.create_task(served.embed(text)) for text in ("harmless", "poison", "healthy")]
        await served.until_stats(requests=4)
        served.model.gate.set()
        healthy, broken, harmless = await asyncio.gather(beside[2], beside[1], beside[0])
        assert (healthy.status_code, harmless.status_code) == (200, 200)
        assert broken.status_code == 500
        assert "breaks" not in broken.text
        assert sorted(served.model.batches[1]) == ["harmless", "healthy", "poison"]
        assert (await served.embed("wholesome")).status_code == 200
        assert (await first).status_code == 200

    with_gated_model(case)


def test_draining_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    """Complaint 2."""

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


def test_wishes_that_cannot_be_read_are_reported_as_well() -> None:
    class Unreadable(Wishes):
        def changed_at(self) -> int:
            raise PermissionError("manifest.json")

    async def case() -> None:
        async with serving(lambda _: GatedModel(), Unreadable()) as served:
            await served.until_stats(state="failed")

    asyncio.run(case())


def test_a_model_whose_vectors_depend_on_their_neighbours_is_not_served() -> None:
    class Scaled(GatedModel):
        """As dynamic quantization does: alike texts agree, and others change each other."""

        def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
            largest = max(max(text.ids) for text in batch)
            return np.array([(np.cos(largest / 1e4), np.sin(largest / 1e4))] * len(batch), dtype=np.float32)

    async def case() -> None:
        async with serving(lambda _: Scaled()) as served:
            await served.until_stats(state="failed")

    asyncio.run(case())


def test_a_burst_is_served_or_refused_and_never_fails() -> None:
    """Complaints 8 and 18."""

    async def case(served: Served) -> None:
        answers = await asyncio.gather(*(served.embed("x" * 50) for _ in range(300)))
        assert {answer.status_code for answer in answers} <= {200, 429}
        assert 200 in {answer.status_code for answer in answers}
        await served.until_stats(requests=0, queued_tokens=0)
        assert len(served.model.threads) == 1

    with_gated_model(case, queue_tokens=2000)


def test_a_list_is_refused_by_its_tokens_as_single_texts_are() -> None:
    """Complaint 17."""

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


def test_the_rest_of_a_long_list_is_dropped_when_its_client_leaves() -> None:
    """Complaints 1 and 4."""

    async def case(served: Served) -> None:
        served.model.gate.clear()
        served.model.busy.clear()
        leaving = asyncio.create_task(served.embed(*(f"{number:60}" for number in range(20))))
        await asyncio.to_thread(served.model.busy.wait)
        leaving.cancel()
        await served.until_stats(requests=0, queued_tokens=0)
        served.model.gate.set()
        assert (await served.embed("after")).status_code == 200
        assert [len(batch) for batch in served.model.batches] == [1, 1]

    # One text of sixty tokens fills a batch.
    with_gated_model(case, batch_tokens=64)


def test_a_client_that_leaves_does_no_harm_to_those_in_its_batch() -> None:
    """Complaint 3."""

    async def case(served: Served) -> None:
        first = await served.occupy()
        leaving, staying = (asyncio.create_task(served.embed(text)) for text in ("leaving", "staying"))
        await served.until_stats(requests=3)
        await served.let_one_batch_through()
        leaving.cancel()
        await served.until_stats(requests=1)
        served.model.one_by_one = False
        served.model.gate.set()
        assert [(await each).status_code for each in (first, staying)] == [200, 200]
        assert [sorted(batch) for batch in served.model.batches] == [["occupied"], ["leaving", "staying"]]

    with_gated_model(case)


def test_health_and_metrics_are_answered_while_many_requests_wait() -> None:
    """Complaint 7."""

    async def case(served: Served) -> None:
        first = await served.occupy()
        waiting = [asyncio.create_task(served.embed("waits")) for _ in range(32)]
        await served.until_stats(requests=33)
        for path in ("/healthz", "/readyz", "/metrics", "/v1/models", "/config"):
            assert (await served.http.get(path, timeout=5)).status_code == 200, path
        served.model.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(first, *waiting)} == {200}

    with_gated_model(case)
