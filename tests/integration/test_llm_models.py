"""LLM with GGUF models, as its own process: what its peers' users complain about, and bad input.

The numbers are those of the list of complaints that the service was designed against (`docs/operations.md`).
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sluice.testing.service_process import ServiceProcess, running_service
from tests.gguf_models import SLOW, TINY, write_model
from tests.integration.llm_models import Llm, chunks, request, streamed_text

CONTEXT = 2048


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", TINY)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "slow.gguf", SLOW)


@pytest.fixture(scope="module")
def llm(tiny: Path) -> Iterator[Llm]:
    with (
        running_service("llm", backend="llama_cpp", model_path=tiny, context_tokens=CONTEXT) as service,
        Llm(service) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def slow_service(slow: Path) -> Iterator[ServiceProcess]:
    settings = {"sequences": 2, "queue_requests": 4, "stuck_seconds": 5, "reader_seconds": 2, "ping_seconds": 0.2}
    with running_service("llm", backend="llama_cpp", model_path=slow, context_tokens=8192, **settings) as service:
        yield service


@pytest.fixture
def slow_llm(slow_service: ServiceProcess) -> Iterator[Llm]:
    """Two sequences, four places in the queue, and a model that is caught at work."""
    with Llm(slow_service) as client:
        yield client
        client.until_idle()


# What it says.


def test_the_same_request_has_the_same_answer_and_so_has_the_same_seed(llm: Llm) -> None:
    assert llm.text(max_tokens=20) == llm.text(max_tokens=20)
    drawn = {llm.text(max_tokens=20, temperature=1.5, top_k=0, top_p=1, min_p=0, seed=seed) for seed in (1, 1, 2)}
    assert len(drawn) == 2


def test_penalties_change_what_is_written(llm: Llm) -> None:
    def repeats(text: str) -> int:
        words = text.split()
        return len(words) - len(set(words))

    plain = llm.text(max_tokens=200)
    for penalty in ({"repeat_penalty": 1.8}, {"presence_penalty": 2}, {"frequency_penalty": 2}):
        assert repeats(llm.text(max_tokens=200, **penalty)) < repeats(plain)


def test_an_answer_is_the_same_streamed_and_whole_and_alone_and_in_company(llm: Llm) -> None:
    alone = llm.text(max_tokens=60)

    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(lambda _: llm.ask(stream=True, max_tokens=60).text, range(8)))

    assert [streamed_text(stream) for stream in together] == [alone] * 8


def test_characters_come_whole_although_tokens_are_parts_of_them(llm: Llm) -> None:
    """Complaint 11."""
    stream = llm.ask(stream=True, max_tokens=200, grammar='root ::= "привет 😀 ∑" "!"')

    pieces = [choice["delta"].get("content", "") for chunk in chunks(stream.text)[:-1] for choice in chunk["choices"]]
    assert "".join(pieces) == "привет 😀 ∑!"
    assert "😀" in pieces


def test_a_stop_string_is_not_shown_even_in_part(llm: Llm) -> None:
    """Complaint 11."""
    answer = llm.ask(stream=True, grammar='root ::= "one two three four"', stop=["ee fo"])

    assert streamed_text(answer.text) == "one two thr"
    assert chunks(answer.text)[-2]["choices"][0]["finish_reason"] == "stop"


def test_usage_tells_what_was_cached_and_is_streamed_to_who_asked(llm: Llm) -> None:
    """Complaint 12."""
    question = "A question that nobody asked before. " * 10
    first, second = (llm.ask(question, max_tokens=4).json()["usage"] for _ in range(2))

    assert first["completion_tokens"] == 4
    assert first["prompt_tokens_details"]["cached_tokens"] < 30
    assert second["prompt_tokens_details"]["cached_tokens"] == second["prompt_tokens"] - 1
    *_, last, done = chunks(llm.ask(stream=True, max_tokens=3, stream_options={"include_usage": True}).text)
    assert (last["choices"], last["usage"]["completion_tokens"], done) == ([], 3, "[DONE]")
    assert all("usage" not in chunk for chunk in chunks(llm.ask(stream=True, max_tokens=3).text)[:-1])


def test_more_conversations_than_sequences_keep_their_beginnings_in_memory(llm: Llm) -> None:
    beginnings = [f"Conversation {number}: " + f"{number} words " * 40 for number in range(12)]
    answers = [llm.text(beginning, max_tokens=8) for beginning in beginnings]

    again = [llm.ask(beginning, max_tokens=8).json() for beginning in beginnings]

    assert all(answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 300 for answer in again)
    assert [answer["choices"][0]["message"]["content"] for answer in again] == answers
    assert llm.stats()["model"]["saved_state_bytes"] > 0


def test_a_completion_goes_on_from_its_text_without_a_chat_template(llm: Llm) -> None:
    answer = llm.http.post("/v1/completions", json={"model": "default", "prompt": "The locks", "max_tokens": 4}).json()

    assert answer["usage"]["prompt_tokens"] == len("The| l|o|c|ks".split("|")) + 1
    assert answer["choices"][0]["finish_reason"] == "length"


def test_json_follows_its_schema(llm: Llm) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["lock", "canal"]}, "boats": {"type": "integer"}, "open": {"type": "boolean"}},
        "required": ["kind", "boats", "open"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "state", "schema": schema}}

    with ThreadPoolExecutor(4) as clients:
        texts = list(clients.map(lambda n: llm.text(response_format=form, temperature=1, seed=n), range(4)))

    for text in texts:
        state = json.loads(text)
        assert state["kind"] in {"lock", "canal"}
        assert isinstance(state["boats"], int)
        assert isinstance(state["open"], bool)


# Bad input: a sentence and the right status, and the process lives.


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"max_tokens": 0}, 422, "invalid"),
        ({"max_tokens": CONTEXT}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 3 * CONTEXT}]}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "\ud800 alone"}], "max_tokens": 2}, 200, None),
        ({"grammar": "(" * 60_000}, 400, "invalid_grammar"),
        ({"grammar": "root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000}, 400, "invalid_grammar"),
        ({"grammar": 'root ::= root "a"'}, 400, "invalid_grammar"),
        ({"grammar": 'root ::= a\na ::= b?\nb ::= a "c"'}, 400, "invalid_grammar"),
        ({"response_format": {"type": "json_schema"}}, 400, "invalid_json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}}, 400, "invalid_json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": [1]}}}, 400, "invalid_json_schema"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, 400, "invalid_grammar"),
        ({"temperature": "hot"}, 422, "invalid"),
        ({"model": "another"}, 404, "model_not_found"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(llm: Llm, body: dict[str, Any], status: int, code: str | None) -> None:
    """Complaints 13, 14 and 30."""
    content = json.dumps({**request("hello", max_tokens=4), **body})
    for stream in (False, True):
        body_with_form = json.dumps({**json.loads(content), "stream": stream})
        answer = llm.http.post("/v1/chat/completions", content=body_with_form)
        assert answer.status_code == status, answer.text
        assert code is None or answer.json()["code"] == code
    assert llm.http.get("/readyz").status_code == 200


HOSTILE = [
    'root ::= ("" *)*',
    'root ::= ""',
    'root ::= a*\na ::= b*\nb ::= ""',
    'root ::= ("a"? "a"? "a"? "a"? "a"? "a"? "a"? "a"? "a"? "a"?)*',
    'root ::= (("a" | "a" | "a") ("a" | "a" | "a"))+',
    r"root ::= [\U0010FFFF]",
    'root ::= "a" root | "a"',
    "root ::= " + "(" * 250 + '"a"' + ")" * 250,
    "root ::= " + " | ".join(f'"{n}"' for n in range(4000)),
    "\n".join(f'r{n} ::= r{n + 1} | "a"' for n in range(3000)) + '\nr3000 ::= "b"\nroot ::= r0',
]


@pytest.mark.parametrize("grammar", HOSTILE, ids=range(len(HOSTILE)))
def test_a_grammar_that_leads_nowhere_does_not_end_the_process(llm: Llm, grammar: str) -> None:
    """Complaint 13."""
    answer = llm.ask(grammar=grammar, max_tokens=12)

    assert answer.status_code in {200, 400}, answer.text
    assert llm.text(max_tokens=3)


def test_an_answer_without_a_limit_ends_at_the_usual_length_or_where_the_context_ends(llm: Llm) -> None:
    """Complaint 30."""
    near_the_end = llm.ask("x" * (CONTEXT - 100), stream=True)

    assert chunks(near_the_end.text)[-2]["choices"][0]["finish_reason"] == "length"
    assert 0 < len(chunks(near_the_end.text)) < 110


@pytest.mark.parametrize("damage", ["no model at all", "cut short", "corrupt", "absent"])
def test_a_file_that_is_no_model_ends_the_service_with_a_sentence(damage: str, tiny: Path, tmp_path: Path) -> None:
    file, content = tmp_path / "model.gguf", tiny.read_bytes()
    damaged = {"no model at all": b"PK" * 1000, "cut short": content[:200_000], "corrupt": content[:8] + b"\xff" * 2000}
    if damage in damaged:
        file.write_bytes(damaged[damage])

    with (
        pytest.raises(RuntimeError, match=r"(?s)(?=.*model\.load_failed)(?=.*model\.gguf)"),
        running_service("llm", backend="llama_cpp", model_path=file),
    ):
        pass


# Clients that leave, stall, and come all at once.


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_while_a_prompt_is_read_frees_the_sequence_at_once(slow_llm: Llm, *, stream: bool) -> None:
    """Complaints 1, 4 and 29."""
    computed = slow_llm.stats()["model"]["prompt_tokens_computed_total"]
    with slow_llm.connected("a long prompt " * 480, stream=stream, max_tokens=5):
        slow_llm.until(lambda s: s["model"]["prompt_tokens_computed_total"] > computed)
    stopped = slow_llm.until_idle()["model"]
    assert stopped["prompt_tokens_computed_total"] - computed < 6000
    assert stopped["steps_total"] == slow_llm.stats()["model"]["steps_total"]


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_while_the_answer_is_written_stops_the_model(slow_llm: Llm, *, stream: bool) -> None:
    """Complaint 1."""
    written = slow_llm.stats()["model"]["tokens_written_total"]
    with slow_llm.connected("hello", stream=stream, max_tokens=4000):
        slow_llm.until(lambda s: s["model"]["tokens_written_total"] > written + 5)
    stopped = slow_llm.until_idle()["model"]["tokens_written_total"]
    assert stopped - written < 1000
    assert slow_llm.stats()["model"]["tokens_written_total"] == stopped


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_the_queue_is_never_served_and_disturbs_nobody(slow_llm: Llm, *, stream: bool) -> None:
    """Complaints 1 and 3."""
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(slow_llm.ask, f"running {n}", stream=True, max_tokens=100) for n in range(2)]
        slow_llm.until(lambda s: s["active"] == 2)
        with slow_llm.connected("waiting", stream=stream, max_tokens=4000):
            slow_llm.until(lambda s: s["waiting"] == 1)
        slow_llm.until(lambda s: s["waiting"] == 0)
        written = [len(chunks(each.result().text)) for each in running]
    assert min(written) > 10
    assert slow_llm.until_idle()["model"]["tokens_written_total"] < 10_000


def test_who_leaves_while_another_prompt_is_read_does_not_wedge_the_service(slow_llm: Llm) -> None:
    """Complaint 2."""
    for _ in range(5):
        with ThreadPoolExecutor(1) as clients:
            with slow_llm.connected("leaving", stream=True, max_tokens=4000):
                slow_llm.until(lambda s: s["model"]["sequences_busy"])
                reading = clients.submit(slow_llm.ask, "a long prompt " * 100, max_tokens=3)
            assert reading.result().status_code == 200
    assert slow_llm.http.get("/readyz").status_code == 200


def test_a_prompt_that_takes_long_to_read_is_accompanied_by_comments(slow_llm: Llm) -> None:
    with slow_llm.http.stream("POST", "/v1/chat/completions", json=request("what nobody said before " * 60, stream=True, max_tokens=2)) as answer:  # fmt: skip
        lines = list(answer.iter_lines())

    assert ": ping" in lines
    assert lines[-2] == "data: [DONE]"


def test_a_burst_is_answered_or_refused_and_the_service_recovers(slow_llm: Llm) -> None:
    """Complaints 5, 15, 16 and 18."""
    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda n: slow_llm.ask(f"burst {n}", max_tokens=60), range(40)))

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 6
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    slow_llm.until_idle()
    assert slow_llm.text(max_tokens=3)


def test_many_connections_leave_metrics_and_health_answering(slow_llm: Llm) -> None:
    """Complaints 7 and 26."""
    threads = _threads(slow_llm.service)
    with ThreadPoolExecutor(6) as clients:
        running = [clients.submit(slow_llm.ask, f"open {n}", stream=True, max_tokens=80) for n in range(6)]
        slow_llm.until(lambda s: s["active"] == 2)
        for path in ("/metrics", "/healthz", "/readyz", "/v1/models"):
            assert slow_llm.http.get(path, timeout=5).status_code == 200
        # None of them is there for a stream.
        assert _threads(slow_llm.service) <= threads + 2
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


def test_thousands_of_steps_do_not_grow_the_process(llm: Llm) -> None:
    """Complaint 9."""

    def steps(count: int) -> None:
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda n: llm.ask(f"grow {n}", max_tokens=count // 4), range(4)))

    steps(4000)
    before = _resident(llm.service)
    steps(5000)
    assert _resident(llm.service) - before < 16 * 1024**2


def _resident(service: ServiceProcess) -> int:
    return int(Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii").split()[1]) * 4096


# Signals.


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


def test_sigterm_lets_eight_streams_end_and_refuses_new_work(slow: Path) -> None:
    """Complaint 2."""
    with (
        running_service("llm", backend="llama_cpp", model_path=slow) as service,
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
    assert threading.active_count() < 50
