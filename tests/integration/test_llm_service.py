"""LLM behind a real uvicorn, with a scripted backend: what is hard to provoke with a model."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

import httpx
import pytest

from services.llm import main
from services.llm.candidate import Candidate
from services.llm.catalog import FixedModel
from services.llm.host import ModelHost, State
from services.llm.metrics import LlmMetrics
from sluice.settings import LlmServiceSettings
from tests.integration.llm_served import (
    GatedBackend,
    Served,
    asked,
    events,
    serving,
    text_of,
    with_gated_backend,
)


def test_a_stream_is_role_text_reason_and_done() -> None:
    async def case(served: Served) -> None:
        answer = await served.ask("hello", stream=True)
        *chunks, done = events(answer.text)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert done == "[DONE]"
        assert [c["choices"][0]["delta"] for c in chunks] == [
            {"role": "assistant", "content": ""},
            {"content": "one "},
            {"content": "two "},
            {"content": "three"},
            {},
        ]
        assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 4 + ["stop"]
        assert {(c["object"], c["model"], c["system_fingerprint"]) for c in chunks} == {
            ("chat.completion.chunk", "gated", "gated")
        }
        assert len({c["id"] for c in chunks}) == 1

    with_gated_backend(case)


def test_the_usage_is_streamed_in_a_last_chunk_only_to_who_asked() -> None:
    async def case(served: Served) -> None:
        unasked = events((await served.ask("hello", stream=True)).text)
        assert all("usage" not in chunk for chunk in unasked[:-1])
        answer = await served.ask("hello you", stream=True, stream_options={"include_usage": True})
        *chunks, last, _ = events(answer.text)
        assert all(chunk["usage"] is None for chunk in chunks)
        assert last["choices"] == []
        assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}

    with_gated_backend(case)


def test_stop_strings_and_the_limit_of_tokens_are_honoured_in_both_shapes() -> None:
    async def case(served: Served) -> None:
        whole = (await served.ask("hello", stop="two")).json()
        assert (whole["choices"][0]["message"]["content"], whole["choices"][0]["finish_reason"]) == ("one ", "stop")
        streamed = events((await served.ask("hello", stop=["o th"], stream=True)).text)
        assert text_of(streamed) == "one tw"
        cut = events((await served.ask("hello", max_tokens=2, stream=True)).text)
        assert (text_of(cut), cut[-2]["choices"][0]["finish_reason"]) == ("one two ", "length")
        newer = (await served.ask("hello", max_completion_tokens=1)).json()
        assert newer["choices"][0]["finish_reason"] == "length"

    with_gated_backend(case)


def test_completions_stream_text_in_their_own_shape() -> None:
    async def case(served: Served) -> None:
        answer = await served.http.post("/v1/completions", json={"model": "default", "prompt": "hello", "stream": True})
        *chunks, done = events(answer.text)
        assert done == "[DONE]"
        assert [chunk["choices"][0]["text"] for chunk in chunks] == ["one ", "two ", "three", ""]
        assert {chunk["object"] for chunk in chunks} == {"text_completion"}

    with_gated_backend(case)


def test_a_client_that_leaves_its_stream_frees_the_slot() -> None:
    async def case(served: Served) -> None:
        async with served.http.stream("POST", "/v1/chat/completions", json=asked("endless", stream=True)) as answer:
            await anext(answer.aiter_lines())
        await served.until_stats(active=0)
        assert served.backend.closed == ["endless"]
        assert (await served.ask("after")).status_code == 200

    with_gated_backend(case)


def test_a_client_that_leaves_while_the_backend_thinks_frees_the_slot() -> None:
    """Complaints 1 and 29."""

    async def case(served: Served) -> None:
        served.backend.gate.clear()
        for stream in (True, False):
            leaving = asyncio.create_task(served.ask("silent", stream=stream))
            await served.until_stats(active=1)
            leaving.cancel()
            await served.until_stats(active=0)
        assert served.backend.closed == ["silent"] * 2

    with_gated_backend(case)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_is_never_served_and_disturbs_nobody(*, stream: bool) -> None:
    async def case(served: Served) -> None:
        served.backend.gate.clear()
        first = asyncio.create_task(served.ask("first", stream=True))
        await served.until_stats(active=1)
        leaving = asyncio.create_task(served.ask("leaving", stream=stream))
        await served.until_stats(waiting=1)
        leaving.cancel()
        await served.until_stats(waiting=0)
        served.backend.gate.set()
        assert text_of(events((await first).text)) == "one two three"
        await served.until_stats(active=0)
        assert served.backend.began == ["first"]

    with_gated_backend(case)


def test_of_six_requests_one_runs_one_waits_and_four_are_refused() -> None:
    """Complaint 15."""

    async def case(served: Served) -> None:
        served.backend.gate.clear()
        running = asyncio.create_task(served.ask("running"))
        await served.until_stats(active=1)
        waiting = asyncio.create_task(served.ask("waiting", stream=True))
        await served.until_stats(waiting=1)
        refused = await asyncio.gather(*(served.ask("refused", stream=bool(n % 2)) for n in range(4)))
        assert [answer.status_code for answer in refused] == [429] * 4
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        served.backend.gate.set()
        assert [(await each).status_code for each in (running, waiting)] == [200, 200]
        assert (await served.ask("after")).status_code == 200

    with_gated_backend(case, queue_requests=1)


def test_what_waits_is_counted_in_tokens_those_to_be_written_included() -> None:
    """Complaint 17."""

    async def case(served: Served) -> None:
        served.backend.gate.clear()
        running = asyncio.create_task(served.ask("running", max_tokens=10))
        await served.until_stats(active=1)
        waiting = asyncio.create_task(served.ask("four words that wait", max_tokens=50))
        await served.until_stats(waiting=1, waiting_tokens=54)
        refused = await served.ask("four words too many", max_tokens=50)
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        small = asyncio.create_task(served.ask("few words", max_tokens=10))
        await served.until_stats(waiting=2, waiting_tokens=66)
        served.backend.gate.set()
        assert [(await each).status_code for each in (running, waiting, small)] == [200, 200, 200]

    with_gated_backend(case, queue_tokens=100)


def test_a_request_that_waited_too_long_is_dropped_with_its_own_status() -> None:
    """Complaint 31."""

    async def case(served: Served) -> None:
        served.backend.gate.clear()
        running = asyncio.create_task(served.ask("running"))
        await served.until_stats(active=1)
        late = await served.ask("late", stream=True)
        assert (late.status_code, late.json()["code"]) == (503, "queue_deadline")
        served.backend.gate.set()
        assert (await running).status_code == 200
        assert served.backend.began == ["running"]

    with_gated_backend(case, queue_seconds=0.3)


def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    async def case(served: Served) -> None:
        served.backend.gate.clear()
        async with served.http.stream("POST", "/v1/chat/completions", json=asked("slow", stream=True)) as answer:
            lines = answer.aiter_lines()
            pings = 0
            while pings < 3:
                pings += await anext(lines) == ": ping"
            served.backend.gate.set()
            rest = "\n".join([line async for line in lines])
        assert text_of(events(rest)) == "one two three"

    with_gated_backend(case, ping_seconds=0.05)


def test_a_reader_that_stalls_does_not_hold_up_others_and_loses_its_slot() -> None:
    async def case(served: Served) -> None:
        url = served.http.base_url
        body = json.dumps(asked("endless", stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection((url.host, url.port)) as stalled:
            stalled.sendall(head + body)
            await served.until_stats(active=1)
            assert text_of(events((await served.ask("brisk", stream=True)).text)) == "one two three"
            await served.until_stats(active=0)
        assert "endless" in served.backend.closed

    with_gated_backend(case, slots=2, reader_seconds=0.5)


def test_a_backend_that_breaks_says_so_in_the_stream_and_never_says_done() -> None:
    async def case(served: Served) -> None:
        found = events((await served.ask("broken", stream=True)).text)
        assert found[-1]["error"]["type"] == "server_error"
        assert "[DONE]" not in found
        assert "cursed" not in json.dumps(found)
        assert (await served.ask("broken")).status_code == 500
        assert (await served.ask("fine")).status_code == 200

    with_gated_backend(case)


def test_many_open_streams_leave_the_service_answering() -> None:
    """Complaint 7."""

    async def case(served: Served) -> None:
        served.backend.gate.clear()
        streams = [asyncio.create_task(served.ask(f"stream {n}", stream=True)) for n in range(40)]
        await served.until_stats(active=40)
        assert (await served.http.get("/metrics")).status_code == 200
        served.backend.gate.set()
        answers = await asyncio.gather(*streams)
        assert {text_of(events(answer.text)) for answer in answers} == {"one two three"}

    with_gated_backend(case, slots=40)


def test_streams_one_after_the_other_and_side_by_side_all_end_properly() -> None:
    """Complaint 6."""

    async def case(served: Served) -> None:
        for _ in range(100):
            assert events((await served.ask("again", stream=True)).text)[-1] == "[DONE]"
        answers = await asyncio.gather(*(served.ask("beside", stream=True) for _ in range(20)))
        assert [events(answer.text)[-1] for answer in answers] == ["[DONE]"] * 20
        await served.until_stats(active=0, waiting=0)

    with_gated_backend(case, slots=4)


def test_sigterm_ends_the_service_although_the_model_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Complaint 2."""
    monkeypatch.setattr(main, "_CLOSE_SECONDS", 1)

    async def case() -> None:
        async with serving(1, drain_seconds=0.3) as served:
            served.backend.gate.clear()
            stuck = asyncio.create_task(served.ask("stuck"))
            await served.until_stats(active=1)
            served.server.handle_exit(signal.SIGTERM, None)
            await served.until_stats(draining=True)
            with pytest.raises(httpx.HTTPError):
                (await stuck).raise_for_status()

    asyncio.run(asyncio.wait_for(case(), 60))


def test_a_model_that_is_stuck_for_good_ends_the_process_which_is_started_again() -> None:
    async def case() -> None:
        backend = GatedBackend(1)
        catalog = FixedModel(Candidate("gated", lambda: backend))
        host = ModelHost(catalog, LlmServiceSettings(), LlmMetrics(), give_up_seconds=0.1)
        await host.start()
        gone = asyncio.Event()
        watching = asyncio.create_task(host.watch(gone.set))
        await asyncio.sleep(0.3)
        assert not gone.is_set()
        backend.responsive = False
        await gone.wait()
        await watching
        assert host.state is State.FAILED

    asyncio.run(asyncio.wait_for(case(), 30))


def test_draining_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    async def case(served: Served) -> None:
        served.backend.gate.clear()
        running = asyncio.create_task(served.ask("running", stream=True))
        await served.until_stats(active=1)
        draining = asyncio.create_task(served.host.drain())
        await served.until_stats(draining=True)
        new = await served.ask("new")
        assert (new.status_code, new.json()["code"]) == (503, "draining")
        assert (await served.http.get("/readyz")).status_code == 503
        assert (await served.http.get("/healthz")).status_code == 200
        served.backend.gate.set()
        assert text_of(events((await running).text)) == "one two three"
        await draining

    with_gated_backend(case)
