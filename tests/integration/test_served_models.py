"""What the services serve, and whether they follow the manifest: against servers that say what the test wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sluice.errors import TemporarilyUnavailable
from sluice.served_models import AWAY, Followed, Follows, ServedModel, ServedModels
from sluice.settings import CompletionClientSettings, EmbeddingClientSettings, FurtherModel
from tests.integration.scripted_service import ScriptedService


def emb_stats(**models: tuple[str, str]) -> dict[str, Any]:
    facts = {
        alias: {"model": name, "version": version, "backend": "openvino"} for alias, (name, version) in models.items()
    }
    return {"state": "ready", "models": facts, "problems": {}}


@pytest.fixture
def emb() -> Iterator[ScriptedService]:
    service = ScriptedService(emb_stats(default=("minilm@1", "aaa"), other=("e5@1", "bbb")))
    with service.serving():
        yield service


@pytest.fixture
def llm() -> Iterator[ScriptedService]:
    service = ScriptedService({"state": "ready", "name": "qwen@1", "backend": "llama_cpp", "refused": None})
    with service.serving():
        yield service


@pytest.fixture
def served(emb: ScriptedService, llm: ScriptedService) -> Iterator[ServedModels]:
    models = ServedModels(
        EmbeddingClientSettings(url=emb.url), CompletionClientSettings(url=llm.url), loading_seconds=0.5
    )
    yield models
    models.close()


def test_every_service_says_what_each_alias_means(
    served: ServedModels, emb: ScriptedService, llm: ScriptedService
) -> None:
    emb.stats["problems"] = {"other": "No memory."}
    llm.stats["refused"] = "It is broken."

    of_emb, of_llm = served.states()

    assert (of_emb.type, of_emb.state, of_emb.problems) == ("embed", "ready", {"other": "No memory."})
    assert list(of_emb.models) == [
        ServedModel("default", "minilm@1", "openvino", "aaa"),
        ServedModel("other", "e5@1", "openvino", "bbb"),
    ]
    assert (of_llm.type, of_llm.problems) == ("llm", {"default": "It is broken."})
    assert list(of_llm.models) == [ServedModel("default", "qwen@1", "llama_cpp")]


@pytest.mark.parametrize("nonsense", [{"state": "ready"}, [], "hello", {"state": "ready", "models": {"default": 1}}])
def test_what_is_no_service_of_ours_counts_as_away(
    served: ServedModels, emb: ScriptedService, nonsense: object
) -> None:
    emb.stats = nonsense

    assert served.states()[0].state == AWAY


def test_the_index_has_the_models_of_its_aliases_wherever_they_are_served(
    emb: ScriptedService, llm: ScriptedService
) -> None:
    apart = ScriptedService(emb_stats(fast=("static@1", "ccc")))
    settings = EmbeddingClientSettings(
        url=emb.url, more_aliases={"other": FurtherModel(), "fast": FurtherModel(url=apart.url)}
    )
    served = ServedModels(settings, CompletionClientSettings(url=llm.url))
    with apart.serving():
        models = served.index_models()
        assert [state.url for state in served.states()] == [emb.url, apart.url, llm.url]
    assert {alias: model.vectors for alias, model in models.items()} == {
        "default": "aaa",
        "other": "bbb",
        "fast": "ccc",
    }
    assert [served.makes_index("embed", alias) for alias in ("fast", "trial")] == [True, False]
    assert not served.makes_index("llm", "default")

    with pytest.raises(TemporarilyUnavailable, match="'fast'"):
        served.index_models()
    assert served.follow("embed", "fast", "static@2") == Followed(Follows.AWAY)
    served.close()


def test_a_service_that_loaded_the_model_serves_it(
    served: ServedModels, emb: ScriptedService, llm: ScriptedService
) -> None:
    emb.answer = 200, {"aliases": {"default": {"outcome": "changed", "model": "minilm@2"}}}
    llm.answer = 200, {"alias": "default", "model": "qwen@2"}

    assert served.follow("embed", "default", "minilm@2") == Followed(Follows.SERVING, "minilm@2")
    assert served.follow("llm", "default", "qwen@2") == Followed(Follows.SERVING, "qwen@2")
    assert (emb.asked, llm.asked) == (["/v1/models:reload"], ["/v1/models/default:activate"])


def test_another_alias_that_failed_is_not_this_one_s_fault(served: ServedModels, emb: ScriptedService) -> None:
    aliases = {
        "default": {"outcome": "changed", "model": "minilm@2"},
        "other": {"outcome": "failed", "model": "e5@2"},
    }
    emb.answer = 409, {"detail": "other: No memory.", "problems": {"other": "No memory."}, "aliases": aliases}

    assert served.follow("embed", "default", "minilm@2").follows is Follows.SERVING
    assert served.follow("embed", "other", "e5@2") == Followed(Follows.REFUSED, "e5@1", "No memory.")


def test_a_service_that_refuses_says_why_and_what_it_serves(served: ServedModels, llm: ScriptedService) -> None:
    llm.answer = 409, {"detail": "qwen@1 goes on. The file is broken."}

    refused = served.follow("llm", "default", "qwen@2")

    assert refused == Followed(Follows.REFUSED, "qwen@1", "qwen@1 goes on. The file is broken.")


def test_a_service_that_loads_another_model_will_load_this_one(served: ServedModels, llm: ScriptedService) -> None:
    llm.answer = 409, {"detail": "Another model is being loaded.", "code": "activation_running"}

    assert served.follow("llm", "default", "qwen@2") == Followed(Follows.LOADING, "qwen@1")


def test_a_service_with_another_folder_serves_something_else(served: ServedModels, llm: ScriptedService) -> None:
    llm.answer = 200, {"alias": "default", "model": "extractive"}

    assert served.follow("llm", "default", "qwen@2") == Followed(Follows.ANOTHER, "qwen@1")


def test_a_model_that_takes_long_is_not_waited_for_without_end(served: ServedModels, llm: ScriptedService) -> None:
    llm.seconds = 1.5

    assert served.follow("llm", "default", "qwen@2") == Followed(Follows.LOADING)
