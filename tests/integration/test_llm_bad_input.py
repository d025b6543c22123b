"""LLM with a GGUF model: wrong requests and broken files get a sentence and the right status, and the process lives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.testing.service_process import running_service
from tests.gguf_models import TINY, write_model
from tests.integration.llm_models import CONTEXT, Llm, chunks, request


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"messages": []}, 422, "invalid"),
        ({"messages": [{"role": "user", "content": 7}]}, 422, "invalid"),
        ({"messages": [{"role": "user", "content": "more"}] * 1000}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "more"}] * 1001}, 422, "invalid"),
        ({"messages": [{"role": "user", "content": "x" * 1_000_000}]}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, 413, "too_large"),
        ({"n": 2}, 400, "unsupported_parameter"),
        ({"tempreture": 1}, 400, "unsupported_parameter"),
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
        ({"response_format": {"json_schema": {"schema": {"type": "object"}}}}, 422, "invalid"),
        ({"response_format": {"type": "text", "json_schema": {"schema": {"type": "object"}}}}, 422, "invalid"),
        ({"response_format": {"type": "json_object", "schema": {"type": "object"}}}, 422, "invalid"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strikt": True}}}, 422, "invalid"),
        ({"temperature": "hot"}, 422, "invalid"),
        ({"model": "another"}, 404, "model_not_found"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(llm: Llm, body: dict[str, Any], status: int, code: str | None) -> None:
    """Complaints 13, 14, 21 and 30."""
    content = json.dumps({**request("hello", max_tokens=4), **body})
    for stream in (False, True):
        body_with_form = json.dumps({**json.loads(content), "stream": stream})
        answer = llm.http.post("/v1/chat/completions", content=body_with_form)
        assert answer.status_code == status, answer.text
        if code:
            problem = answer.json()
            assert problem["code"] == code
            assert problem["error"]["message"] == problem["detail"]
            assert answer.headers["content-type"] == "application/problem+json"
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


def test_an_error_names_the_member_and_says_what_it_may_be(llm: Llm) -> None:
    none = llm.ask(max_tokens=0).json()
    typo = llm.ask(tempreture=1).json()
    model = llm.ask(model="another").json()

    assert (none["param"], none["error"]["param"]) == ("max_tokens", "max_tokens")
    assert "greater than or equal to 1" in none["detail"]
    assert (typo["param"], "tempreture" in typo["detail"]) == ("tempreture", True)
    assert "'default'" in model["detail"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize"])
def test_too_many_messages_are_refused_before_any_is_read(llm: Llm, path: str) -> None:
    # The last one would be refused too, if anybody came to it.
    messages = [{"role": "user", "content": "x"}] * 79_999 + [{"role": "wizard", "content": "x"}]

    refused = llm.http.post(path, json={"model": "default", "messages": messages})

    assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (422, "invalid", "messages")
    assert refused.json()["detail"] == "messages: List should have at most 1000 items after validation, not 80000"
    assert len(refused.json()["errors"]) == 1


@pytest.mark.parametrize("splitting", ["tekken", "deepseek-llm", "gpt-4o", "bloom"])
def test_a_text_without_an_end_of_a_word_does_not_end_the_process(splitting: str, tmp_path: Path) -> None:
    file = write_model(tmp_path / f"{splitting}.gguf", TINY, splitting=splitting)
    with running_service("llm", backend="llama_cpp", model_path=file) as service, Llm(service) as llm:
        for character in ("a", " ", "ж"):
            text = character * 100_000
            split = llm.http.post("/tokenize", json={"prompt": text})
            assert split.status_code == 200, split.text
            assert split.json()["count"] > 0
        assert llm.text(max_tokens=3)


@pytest.mark.parametrize("damage", ["no model at all", "cut short", "corrupt", "absent"])
def test_a_file_that_is_no_model_ends_the_service_with_a_sentence(
    damage: str, tiny_model: Path, tmp_path: Path
) -> None:
    file, content = tmp_path / "model.gguf", tiny_model.read_bytes()
    damaged = {"no model at all": b"PK" * 1000, "cut short": content[:200_000], "corrupt": content[:8] + b"\xff" * 2000}
    if damage in damaged:
        file.write_bytes(damaged[damage])

    with (
        pytest.raises(RuntimeError, match=r"(?s)(?=.*model\.load_failed)(?=.*model\.gguf)"),
        running_service("llm", backend="llama_cpp", model_path=file),
    ):
        pass
