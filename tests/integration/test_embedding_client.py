"""The client of EMB, when EMB changes."""

from __future__ import annotations

from sluice.embedding_client import HttpEmbeddingClient, embedding_clients
from sluice.settings import EmbeddingClientSettings, FurtherModel
from tests.integration.scripted_service import ScriptedService


def model_list(version: str) -> dict[str, object]:
    card = {"id": "default", "created": 0, "version": version, "dimension": 2, "max_tokens": 8}
    return {"data": [card, {**card, "id": "other", "version": f"other-{version}"}]}


def embedded_by(version: str) -> dict[str, object]:
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    item = {"index": 0, "embedding": [1.0, 0.0]}
    return {"data": [item], "model": "default", "model_version": version, "usage": usage}


def test_a_client_that_meets_another_model_asks_which_there_is() -> None:
    service = ScriptedService(model_list("old"))
    with service.serving(), HttpEmbeddingClient(EmbeddingClientSettings(url=service.url)) as client:
        assert client.model().version == "old"
        service.stats, service.answer = model_list("new"), (200, embedded_by("old"))
        client.embed(["x"], input_type="query")
        assert client.model().version == "old", "asked a moment ago, and nothing speaks against it"

        service.answer = 200, embedded_by("new")
        client.embed(["x"], input_type="query")

        assert client.model().version == "new"


def test_there_is_a_client_for_each_alias_at_its_own_service() -> None:
    near, far = ScriptedService(model_list("near")), ScriptedService(model_list("far"))
    settings = EmbeddingClientSettings(url=near.url, more_aliases={"other": FurtherModel(url=far.url)})
    with near.serving(), far.serving():
        clients = embedding_clients(settings)
        versions = {alias: client.model().version for alias, client in clients.items()}
        for client in clients.values():
            client.close()

    assert versions == {"default": "near", "other": "other-far"}
    assert list(versions) == ["default", "other"], "the default one first"
