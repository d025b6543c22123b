"""LLM with a GGUF model: clients that leave, stall, and come all at once, and signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from services.llm.backends.llama_cpp.steps import LARGEST_STEP
from sluice.testing.service_process import ServiceProcess, running_service
from tests.integration.llm_models import CONTEXT, Llm, chunks, request, streamed_text

# Leaving.


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_while_a_prompt_is_read_frees_the_sequence_at_once(slow_llm: Llm, *, stream: bool) -> None:
    """Complaints 1, 4 and 29."""
    computed = slow_llm.stats()["model"]["prompt_tokens_computed_total"]
    with slow_llm.connected("a long prompt " * 480, stream=stream, max_tokens=5):
        slow_llm.until(lambda s: s["model"]["prompt_tokens_computed_total"] > computed)
    left = slow_llm.stats()["model"]["prompt_tokens_computed_total"]
    stopped = slow_llm.until_idle()["model"]
    # Of more than 5,000: the pass that was running, and what begins before the service hears of it.
    assert stopped["prompt_tokens_computed_total"] - left <= 3 * LARGEST_STEP
    assert stopped["steps_total"] == slow_llm.stats()["model"]["steps_total"]


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_while_the_answer_is_written_stops_the_model(slow_llm: Llm, *, stream: bool) -> None:
    """Complaint 1."""
    written = slow_llm.tokens_written()
    with slow_llm.connected("hello", stream=stream, max_tokens=4000):
        slow_llm.until(lambda s: s["model"]["tokens_written_total"] > written + 5)
    left = slow_llm.tokens_written()
    stopped = slow_llm.until_idle()["model"]["tokens_written_total"]
    # Of 4,000: one in each step.
    assert stopped - left <= 20
    assert slow_llm.tokens_written() == stopped


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_the_queue_is_never_served_and_disturbs_nobody(slow_llm: Llm, *, stream: bool) -> None:
    """Complaints 1 and 3."""
    before = slow_llm.tokens_written()
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(slow_llm.ask, f"running {n}", stream=True, max_tokens=60) for n in range(2)]
        slow_llm.until(lambda s: s["active"] == 2)
        with slow_llm.connected("waiting", stream=stream, max_tokens=4000):
            slow_llm.until(lambda s: s["waiting"] == 1)
        slow_llm.until(lambda s: s["waiting"] == 0)
        written = [len(chunks(each.result().text)) for each in running]
    assert min(written) > 10
    slow_llm.until_idle()
    assert slow_llm.tokens_written() - before <= 2 * 60


def test_who_leaves_while_another_prompt_is_read_does_not_wedge_the_service(slow_llm: Llm) -> None:
    """Complaint 2."""
    for _ in range(3):
        with ThreadPoolExecutor(1) as clients:
            with slow_llm.connected("leaving", stream=True, max_tokens=4000):
                slow_llm.until(lambda s: s["model"]["sequences_busy"])
                reading = clients.submit(slow_llm.ask, "a long prompt " * 100, max_tokens=3)
            assert reading.result().status_code == 200
    assert slow_llm.http.get("/readyz").status_code == 200


# Stalling.


def test_who_stops_reading_pauses_only_his_own_answer_and_loses_it_after_a_while(llm: Llm) -> None:
    before = llm.tokens_written()
    with llm.connected("stalling", stream=True, max_tokens=1900):
        llm.until_nothing_is_written()
        assert llm.stats()["model"]["sequences_busy"] == 1
        assert streamed_text(llm.ask("brisk", stream=True, max_tokens=20).text)
        llm.until_idle()
        assert llm.tokens_written() - before < 1900
    assert llm.text(max_tokens=3)


def test_who_reads_on_in_time_gets_the_whole_answer(llm: Llm) -> None:
    with llm.connected(
        "reading on", stream=True, max_tokens=1900, stream_options={"include_usage": True}
    ) as connection:
        llm.until_nothing_is_written()
        assert llm.stats()["model"]["sequences_busy"] == 1
        received = b""
        while part := connection.recv(65_536):
            received += part

    assert b"data: [DONE]" in received
    assert b'"completion_tokens":1900' in received


# All at once.


def test_a_prompt_that_takes_long_to_read_is_accompanied_by_comments(slow_llm: Llm) -> None:
    question = request("what nobody said before " * 40, stream=True, max_tokens=2)
    with slow_llm.http.stream("POST", "/v1/chat/completions", json=question) as answer:
        lines = list(answer.iter_lines())

    assert ": ping" in lines
    assert lines[-2] == "data: [DONE]"


def test_forty_at_once_are_answered_or_refused_and_the_service_recovers(slow_llm: Llm) -> None:
    """Complaints 5, 16 and 18."""
    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda n: slow_llm.ask(f"burst {n}", max_tokens=40), range(40)))

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 6
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    slow_llm.until_idle()
    assert slow_llm.text(max_tokens=3)


def test_five_thousand_calls_are_answered_or_refused(slow_llm: Llm) -> None:
    """Complaints 16 and 18."""
    url = slow_llm.http.base_url
    content = json.dumps(request("burst", max_tokens=3)).encode()
    call = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content

    async def one_after_the_other(count: int) -> Counter[int]:
        found: Counter[int] = Counter()
        reader, writer = await asyncio.open_connection(url.host, url.port)
        for _ in range(count):
            writer.write(call)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            found[int(head.split()[1])] += 1
        writer.close()
        return found

    async def burst() -> Counter[int]:
        return sum(await asyncio.gather(*(one_after_the_other(50) for _ in range(100))), Counter[int]())

    statuses = asyncio.run(burst())

    assert set(statuses) == {200, 429}
    assert statuses.total() == 5000
    slow_llm.until_idle()
    assert slow_llm.text(max_tokens=3)


def test_many_open_streams_leave_metrics_and_health_answering(llm: Llm) -> None:
    """Complaints 7, 22 and 26."""
    threads = _threads(llm.service)
    with ThreadPoolExecutor(32) as clients:
        running = [clients.submit(llm.ask, f"open {n}", stream=True, max_tokens=300) for n in range(32)]
        llm.until(lambda s: s["active"] == 8 and s["waiting"] == 24)
        for path in ("/metrics", "/healthz", "/readyz", "/v1/models"):
            assert llm.http.get(path, timeout=5).status_code == 200
        # None of them is there for a stream.
        assert _threads(llm.service) <= threads + 2
        assert all(each.result().text.endswith("data: [DONE]\n\n") for each in running)


def _threads(service: ServiceProcess) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))


def test_streams_one_after_the_other_and_side_by_side_all_end_properly(llm: Llm) -> None:
    """Complaints 5, 6 and 8."""
    for number in range(100):
        assert llm.ask(f"again {number % 7}", stream=True, max_tokens=3).text.endswith("data: [DONE]\n\n")
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda n: llm.ask(f"beside {n}", stream=True, max_tokens=30), range(20)))
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    llm.until_idle()


def test_every_sequence_may_be_filled_to_its_end_at_the_same_time(llm: Llm) -> None:
    """Complaint 28."""
    room = CONTEXT - llm.ask("x" * 1900, max_tokens=1).json()["usage"]["prompt_tokens"]

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda n: llm.ask(f"{n}" * 1900, max_tokens=room).json(), range(8)))

    assert [answer["choices"][0]["finish_reason"] for answer in answers] == ["length"] * 8
    assert [answer["usage"]["total_tokens"] for answer in answers] == [CONTEXT] * 8


def test_thousands_of_steps_do_not_grow_the_process(llm: Llm) -> None:
    """Complaint 9."""

    def make_steps() -> None:
        assert llm.ask("grow", max_tokens=1700).json()["usage"]["completion_tokens"] == 1700

    make_steps()
    before = _resident(llm.service)
    for _ in range(3):
        make_steps()
    assert _resident(llm.service) - before < 16 * 1024**2


def _resident(service: ServiceProcess) -> int:
    return int(Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii").split()[1]) * 4096


# Cores and signals.


def test_a_service_with_one_core_computes_with_one_thread(tiny_model: Path) -> None:
    """Complaint 19."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with running_service("llm", backend="llama_cpp", model_path=tiny_model) as service, Llm(service) as llm:
            assert llm.text(max_tokens=3)
            assert llm.stats()["model"]["threads"] == 1
    finally:
        os.sched_setaffinity(0, cores)


def test_a_process_that_is_stopped_is_not_ready_and_goes_on_when_continued(slow_llm: Llm) -> None:
    """Complaints 2 and 31."""
    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(slow_llm.ask, "hello", stream=True, max_tokens=100)
        slow_llm.until(lambda s: s["active"])
        slow_llm.service.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(httpx.TimeoutException):
                httpx.get(f"{slow_llm.service.url}/readyz", timeout=1)
        finally:
            slow_llm.service.process.send_signal(signal.SIGCONT)
        assert running.result().text.endswith("data: [DONE]\n\n")
    assert slow_llm.http.get("/readyz").status_code == 200


def test_sigterm_lets_eight_streams_end_and_refuses_new_work(slow_model: Path) -> None:
    """Complaint 2."""
    with (
        running_service("llm", backend="llama_cpp", model_path=slow_model, context_tokens=512) as service,
        Llm(service) as llm,
        ThreadPoolExecutor(8) as clients,
    ):
        running = [clients.submit(llm.ask, f"stream {n}", stream=True, max_tokens=120) for n in range(8)]
        llm.until(lambda s: s["active"] == 8)
        service.terminate()
        llm.until(lambda s: s["draining"])
        refused = llm.ask()
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert llm.http.get("/readyz").status_code == 503
        streams = [each.result().text for each in running]
        assert all(stream.endswith("data: [DONE]\n\n") for stream in streams)
        assert all(len(chunks(stream)) > 50 for stream in streams)
        assert service.exit_code() == 0
