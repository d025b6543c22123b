"""EMB under load, signals and hostile texts, with the real model in a process of its own.

The numbers are those of the complaints about its peers in `docs/operations.md`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from sluice.testing.service_process import ServiceProcess, running_service
from tests.integration.emb_served import Served, post, vectors


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("emb") as running:
        yield running


def test_health_is_answered_while_the_model_works(service: ServiceProcess) -> None:
    """Complaint 26."""

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
    """Complaint 2."""

    async def case(service: ServiceProcess) -> list[int]:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
            body = {"model": "default", "input": ["water " * 250] * 8}
            embedding = [asyncio.create_task(http.post("/v1/embeddings", json=body)) for _ in range(8)]
            await Served.until_stats_of(http, requests=8)
            service.terminate()
            return [(await each).status_code for each in embedding]

    with running_service("emb") as service:
        assert asyncio.run(case(service)) == [200] * 8
        assert service.exit_code() == 0


def test_a_burst_of_thousands_is_served_or_refused_with_a_time_to_come_back() -> None:
    """Complaint 18."""
    with running_service("emb", queue_tokens=1024) as small:
        answers = asyncio.run(burst(small, clients=200, calls=25))
        assert len(answers) == 5_000
        assert {status for status, _ in answers} == {200, 429}
        assert all(retry_after >= 1 for status, retry_after in answers if status == 429)
        assert post(small, input="after").status_code == 200


async def burst(service: ServiceProcess, *, clients: int, calls: int) -> list[tuple[int, int]]:
    """Status and Retry-After of as many calls, by clients that cost less than the server."""
    body = json.dumps({"model": "default", "input": "one of many calls " * 20, "encoding_format": "base64"}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: emb\r\ncontent-length: {len(body)}\r\n\r\n"
    address = httpx.URL(service.url)

    async def client() -> list[tuple[int, int]]:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        answers = []
        for _ in range(calls):
            writer.write(head.encode() + body)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            await reader.readexactly(int(headers["content-length"]))
            answers.append((int(status.split()[1]), int(headers.get("retry-after", 0))))
        writer.close()
        return answers

    return [each for some in await asyncio.gather(*(client() for _ in range(clients))) for each in some]


def test_a_stopped_process_is_not_ready_and_goes_on_when_it_is_continued(service: ServiceProcess) -> None:
    """Complaints 2 and 31."""
    service.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{service.url}/readyz", timeout=1)
    finally:
        service.process.send_signal(signal.SIGCONT)
    assert httpx.get(f"{service.url}/readyz", timeout=30).status_code == 200
    assert post(service, input="awake").status_code == 200


def test_on_one_cpu_the_model_has_one_thread(service: ServiceProcess) -> None:
    """Complaint 19."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with running_service("emb") as narrow:
            assert httpx.get(f"{narrow.url}/stats").json()["threads"] == 1
    finally:
        os.sched_setaffinity(0, before)
    assert httpx.get(f"{service.url}/stats").json()["threads"] <= len(before)


def test_nothing_is_forked_once_the_model_is_loaded(service: ServiceProcess) -> None:
    """Complaint 23."""
    assert post(service, input="loaded").status_code == 200
    tasks = Path(f"/proc/{service.process.pid}/task")
    assert not any((each / "children").read_text(encoding="ascii") for each in tasks.iterdir())


def test_requests_one_after_the_other_and_side_by_side_all_get_their_own_vectors(service: ServiceProcess) -> None:
    """Complaints 5, 6 and 8."""
    texts = [f"Lock number {number} of the canal" for number in range(20)]
    expected = vectors(service, *texts)
    for number in range(100):
        assert post(service, input=texts[number % 20]).status_code == 200
    with ThreadPoolExecutor(20) as clients:
        beside = np.vstack(list(clients.map(lambda text: vectors(service, text), texts)))
    assert (beside * expected).sum(axis=1).min() >= 0.9999


def test_batches_of_many_shapes_do_not_grow_the_process() -> None:
    """Complaints 9, 20 and 24."""
    chance = random.Random(7)  # noqa: S311 - the same mixture in each run

    def batches(service: ServiceProcess, count: int) -> None:
        for _ in range(count):
            words = [chance.randint(1, 300) for _ in range(chance.randint(1, 12))]
            assert post(service, input=["water " * each for each in words]).status_code == 200

    with running_service("emb") as service:
        batches(service, 25)
        before = resident(service)
        batches(service, 40)
        assert resident(service) < 1.25 * before


def test_random_texts_without_spaces_do_not_grow_the_process(service: ServiceProcess) -> None:
    """Complaint 21."""
    chance = random.Random(11)  # noqa: S311 - the same texts in each run

    def texts() -> list[str]:
        return ["".join(chance.choices(string.ascii_letters, k=12_000)) for _ in range(20)]

    for _ in range(3):
        assert post(service, input=texts()).status_code == 200
    before = resident(service)
    for _ in range(20):
        assert post(service, input=texts()).status_code == 200
    assert resident(service) - before < 64 * 1024**2


def resident(service: ServiceProcess) -> int:
    """Bytes of memory that the process has."""
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_long_text_without_spaces_is_one_unknown_word_and_costs_nothing(service: ServiceProcess) -> None:
    """Complaint 21."""
    answer = post(service, input="x" * 100_000)

    assert answer.status_code == 200
    assert answer.json()["usage"]["total_tokens"] < 256


def test_threads_do_not_grow_with_requests(service: ServiceProcess) -> None:
    """Complaints 7 and 22."""

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
