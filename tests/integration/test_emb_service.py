"""EMB's contract over HTTP, with the real model in a process of its own.

The numbers are those of the complaints about its peers in `docs/operations.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from sluice.embedding_client import HttpEmbeddingClient
from sluice.embedding_models.built_in import source_folder
from sluice.errors import Invalid
from sluice.settings import EmbeddingClientSettings
from sluice.testing.service_process import ServiceProcess, running_service
from sluice.wire.embeddings import vector_from_base64
from tests.integration.emb_served import post, vectors


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("emb") as running:
        yield running


@pytest.fixture(scope="module")
def library() -> SentenceTransformer:
    return SentenceTransformer(str(source_folder()), device="cpu", local_files_only=True)


TEXTS = [f"Sentence number {n} about locks, sluices and the water behind them. " * (1 + n % 7) for n in range(32)]


def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(service: ServiceProcess) -> None:
    """Complaint 25."""
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
    """Complaint 27."""
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


def test_what_is_no_text_is_named_and_the_service_goes_on(service: ServiceProcess) -> None:
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"input": ["a"] * 10_000}, 422),
        ({"input": "x" * 1_000_000}, 413),
        ({"input": "\ud800 alone"}, 422),
        ({"input": ["fine", {"not": "text"}]}, 422),
        ({"input": None}, 422),
        ({"input": "a", "\ud800": 1}, 422),
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
