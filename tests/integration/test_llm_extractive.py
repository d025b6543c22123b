"""LLM with its built-in backend, as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sluice.testing.service_process import ServiceProcess, running_service


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("llm") as running:
        yield running


def post(service: ServiceProcess, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{service.url}{path}", json={"model": "default", **body}, timeout=60)


DOCUMENTS = [{"id": "7", "title": "Locks", "text": "A lock raises boats, e.g. barges. It has two gates."}]
QUESTION = [{"role": "user", "content": "What does a lock raise?"}]


def test_the_built_in_backend_quotes_and_cites_and_says_that_it_is_extractive(service: ServiceProcess) -> None:
    answer = post(service, "/v1/chat/completions", messages=QUESTION, documents=DOCUMENTS).json()
    assert answer["choices"][0]["message"]["content"] == "A lock raises boats, e.g. barges. [7]"
    assert (answer["model"], answer["system_fingerprint"]) == ("extractive", "extractive")
    assert answer["usage"]["completion_tokens"] == 7


def test_a_completion_may_bring_documents_too(service: ServiceProcess) -> None:
    answer = post(service, "/v1/completions", prompt=QUESTION[0]["content"], documents=DOCUMENTS).json()
    assert answer["choices"][0]["text"] == "A lock raises boats, e.g. barges. [7]"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"messages": []}, 422, "invalid"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, 422, "invalid"),
        ({"messages": QUESTION, "model": "another"}, 404, "model_not_found"),
        ({"messages": QUESTION, "n": 2}, 400, "unsupported_parameter"),
        ({"messages": QUESTION, "tools": [{"type": "function"}]}, 400, "unsupported_parameter"),
        ({"messages": QUESTION, "response_format": {"type": "json_schema"}}, 400, "unsupported_parameter"),
        ({"messages": QUESTION, "max_tokens": 0}, 422, "invalid"),
        ({"messages": [{"role": "user", "content": "word " * 40_000}]}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 5_000_000}]}, 413, "too_large"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    service: ServiceProcess, body: dict[str, Any], status: int, code: str
) -> None:
    answer = post(service, "/v1/chat/completions", **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["error"]["message"] == answer.json()["detail"]


@pytest.mark.parametrize("harmless", [{"n": 1}, {"tools": []}, {"response_format": {"type": "text"}}, {"user": "me"}])
def test_parameters_that_change_nothing_are_accepted(service: ServiceProcess, harmless: dict[str, Any]) -> None:
    assert post(service, "/v1/chat/completions", messages=QUESTION, **harmless).status_code == 200


def test_tokenize_counts_as_the_usage_does(service: ServiceProcess) -> None:
    split = post(service, "/tokenize", messages=QUESTION).json()
    usage = post(service, "/v1/chat/completions", messages=QUESTION).json()["usage"]
    assert split["count"] == usage["prompt_tokens"] == 5
    # Words have no numbers.
    assert split["tokens"] is None
    assert post(service, "/tokenize").status_code == 422


def test_models_names_the_alias_and_what_is_behind_it(service: ServiceProcess) -> None:
    (card,) = httpx.get(f"{service.url}/v1/models").json()["data"]
    assert (card["id"], card["backend"]) == ("default", "extractive")


def test_metrics_tell_what_was_done(service: ServiceProcess) -> None:
    post(service, "/v1/chat/completions", messages=QUESTION)
    assert 'llm_requests_total{endpoint="chat_completions",status="200"}' in httpx.get(f"{service.url}/metrics").text


def test_the_service_needs_no_heavy_library(service: ServiceProcess) -> None:
    with open(f"/proc/{service.process.pid}/maps", encoding="utf-8") as maps:  # noqa: PTH123 - not a file on disk
        loaded = maps.read()
    assert "torch" not in loaded
    assert "numpy" not in loaded


def test_sigterm_ends_an_idle_service_properly() -> None:
    with running_service("llm") as service:
        service.terminate()
        assert service.exit_code() == 0
