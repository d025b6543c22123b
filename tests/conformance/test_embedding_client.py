"""What every embedding client promises, tried on the fake and on EMB itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from tokenizers import Tokenizer

from sluice.embedding_client import EmbeddingClient, HttpEmbeddingClient
from sluice.errors import TemporarilyUnavailable
from sluice.settings import EmbeddingClientSettings
from sluice.testing.embeddings import FakeEmbeddings
from sluice.testing.service_process import free_port, running_service


@pytest.fixture(scope="module", params=["fake", "service"])
def client(request: pytest.FixtureRequest) -> Iterator[EmbeddingClient]:
    if request.param == "fake":
        yield FakeEmbeddings()
        return
    with (
        running_service("emb") as service,
        HttpEmbeddingClient(EmbeddingClientSettings(url=service.url)) as http_client,
    ):
        yield http_client


def likeness(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_there_is_a_vector_of_the_models_dimension_for_every_text(client: EmbeddingClient) -> None:
    embedded = client.embed(["one", "two", "three"], input_type="document")
    assert [len(vector) for vector in embedded.vectors] == [client.model().dimension] * 3


def test_vectors_have_unit_length(client: EmbeddingClient) -> None:
    (vector,) = client.embed(["water behind a lock"], input_type="document").vectors
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)


def test_vectors_come_in_the_order_of_the_texts(client: EmbeddingClient) -> None:
    texts = ["short", "a longer text about water " * 10, "mid size text here"]
    together = client.embed(texts, input_type="document").vectors
    alone = [client.embed([text], input_type="document").vectors[0] for text in texts]
    assert all(likeness(a, b) > 0.999 for a, b in zip(together, alone, strict=True))


def test_texts_that_share_words_are_closer_than_texts_that_do_not(client: EmbeddingClient) -> None:
    asked, near, far = client.embed(
        ["the water level in the lock", "the lock and its water level", "quarterly tax return forms"],
        input_type="document",
    ).vectors
    assert likeness(asked, near) > likeness(asked, far)


def test_no_text_is_no_vector(client: EmbeddingClient) -> None:
    assert client.embed([], input_type="query").vectors == []


def test_the_version_that_made_the_vectors_is_the_models(client: EmbeddingClient) -> None:
    assert client.embed(["x"], input_type="query").model_version == client.model().version


def test_a_text_that_is_too_long_is_cut_and_named(client: EmbeddingClient) -> None:
    embedded = client.embed(["short", "word " * 1000], input_type="document")
    assert embedded.truncated == (1,)


def test_the_tokenizer_counts_without_cutting(client: EmbeddingClient) -> None:
    tokenizer = Tokenizer.from_str(client.tokenizer().decode())
    assert len(tokenizer.encode("word " * 1000, add_special_tokens=False).ids) == 1000


def test_the_tokenizer_counts_as_the_model_does(client: EmbeddingClient) -> None:
    tokenizer = Tokenizer.from_str(client.tokenizer().decode())
    text = "Water rises in the lock, slowly."
    assert client.embed([text], input_type="document").tokens == len(tokenizer.encode(text).ids)


def test_a_server_that_is_not_there_is_temporarily_unavailable() -> None:
    with HttpEmbeddingClient(EmbeddingClientSettings(url=f"http://127.0.0.1:{free_port()}")) as absent:
        for attempt in (absent.model, absent.tokenizer, lambda: absent.embed(["x"], input_type="query")):
            with pytest.raises(TemporarilyUnavailable) as refused:
                attempt()
            assert refused.value.code == "embedder_unavailable"
            assert refused.value.retry_after > 0


def test_a_fake_that_is_switched_off_is_temporarily_unavailable() -> None:
    fake = FakeEmbeddings()
    fake.available = False
    with pytest.raises(TemporarilyUnavailable) as refused:
        fake.embed(["x"], input_type="query")
    assert refused.value.code == "embedder_unavailable"
