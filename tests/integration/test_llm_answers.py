"""LLM with a GGUF model, as its own process: what it says, and how it counts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.llm.backends.base import Prompt
from services.llm.backends.llama_cpp.backend import LlamaCppBackend
from sluice.settings import LlmServiceSettings
from sluice.wire.asgi import Malformed
from sluice.wire.completions import ChatMessage, ResponseFormat
from tests.gguf_models import TINY, write_model
from tests.integration.llm_models import Llm, chunks, streamed_text


def test_the_same_request_has_the_same_answer_and_so_has_the_same_seed(llm: Llm) -> None:
    assert llm.text(max_tokens=20) == llm.text(max_tokens=20)
    drawn = {llm.text(max_tokens=20, temperature=1.5, top_k=0, top_p=1, min_p=0, seed=seed) for seed in (1, 1, 2)}
    assert len(drawn) == 2


def test_penalties_change_what_is_written(llm: Llm) -> None:
    def repeats(text: str) -> int:
        words = text.split()
        return len(words) - len(set(words))

    plain = llm.text(max_tokens=100)
    for penalty in ({"repeat_penalty": 1.8}, {"presence_penalty": 2}, {"frequency_penalty": 2}):
        assert repeats(llm.text(max_tokens=100, **penalty)) < repeats(plain)


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


def test_what_a_document_says_does_not_end_its_turn(llm: Llm) -> None:
    def tokens(text: str) -> int:
        return int(llm.ask(text, max_tokens=1).json()["usage"]["prompt_tokens"])

    # A control token is one token; the same characters as text are several.
    assert tokens("<|im_end|>") > tokens("a") + 3


def test_tokens_are_told_by_number_and_as_text(llm: Llm) -> None:
    split = llm.http.post("/tokenize", json={"prompt": "the the<|im_end|>"}).json()

    assert split["token_strs"][:3] == ["the", " ", "the"]
    assert "".join(split["token_strs"]) == "the the<|im_end|>"
    assert split["count"] == len(split["tokens"]) == len(split["token_strs"])
    # The numbers are the vocabulary's: bytes first, then what is joined of them, in this order.
    assert split["tokens"][:3] == [257, 32, 257]


def test_a_prompt_begins_once_although_the_template_says_so_too(tmp_path: Path) -> None:
    def tokens(name: str, *, begins: bool) -> int:
        backend = LlamaCppBackend(
            write_model(tmp_path / name, TINY, begins=begins), LlmServiceSettings(context_tokens=2048, sequences=1)
        )

        async def count() -> int:
            answer = await backend.prepare(Prompt([ChatMessage(role="user", content="hello")]))
            await backend.close()
            return answer.prompt_tokens

        return asyncio.run(count())

    assert tokens("begins.gguf", begins=True) == tokens("plain.gguf", begins=False) + 1


@contextmanager
def a_backend(file: Path) -> Iterator[LlamaCppBackend]:
    backend = LlamaCppBackend(file, LlmServiceSettings(context_tokens=2048, sequences=1))
    try:
        yield backend
    finally:
        asyncio.run(backend.close())


def test_a_plain_question_does_not_stand_behind_grammars(tiny_model: Path) -> None:
    question = [ChatMessage(role="user", content="hello")]
    rules = "\n".join(f'r{n} ::= "a{n}" r{n + 1}' for n in range(1500)) + '\nr1500 ::= "b"\nroot ::= r0'

    async def case(backend: LlamaCppBackend) -> list[str]:
        order: list[str] = []

        async def prepared(name: str, prompt: Prompt) -> None:
            await backend.prepare(prompt)
            order.append(name)

        bound = [prepared("bound", Prompt(question, grammar=rules)) for _ in range(6)]
        plain_form = prepared("plain", Prompt(question, response_format=ResponseFormat(type="text")))
        await asyncio.gather(*bound, prepared("plain", Prompt(question)), plain_form)
        return order

    with a_backend(tiny_model) as backend:
        order = asyncio.run(case(backend))
    assert "plain" not in order[-4:]


def test_the_event_loop_goes_on_while_a_model_is_freed(tiny_model: Path) -> None:
    """Its readers are waited for: they have the vocabulary."""
    backend = LlamaCppBackend(tiny_model, LlmServiceSettings(context_tokens=2048, sequences=1))

    async def case() -> bool:
        read = threading.Event()
        reading = backend._readers.submit(read.wait, 20)
        closing = asyncio.create_task(backend.close())
        asyncio.get_running_loop().call_later(0.2, read.set)
        await closing
        return reading.result()

    assert asyncio.run(case())


def test_a_text_that_cannot_fit_is_refused_by_its_characters(tiny_model: Path) -> None:
    with a_backend(tiny_model) as backend, pytest.raises(Malformed) as refused:
        asyncio.run(backend.prepare(Prompt([ChatMessage(role="user", content="x" * 3_000_000)])))

    assert refused.value.code == "context_length_exceeded"
    assert "3000000 characters" in refused.value.detail


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
