"""EMB: one model takes another's place while requests run.

The numbers are those of the complaints about its peers in `docs/operations.md`.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx

from services.emb.catalog import WantedModel
from sluice.model_store.store import Description, ModelStore, NotWhatWasAdded
from sluice.testing.service_process import running_service
from tests.integration.emb_served import (
    POLL_SECONDS,
    POLLS,
    GatedModel,
    Served,
    Wishes,
    model_named,
    post,
    serving,
    until,
)


class Shelf:
    """Models to load, by name; each remembers its texts."""

    def __init__(self) -> None:
        self.models: dict[str, GatedModel] = {}
        self.wishes = Wishes()
        self.broken: set[str] = set()

    def load(self, wanted: WantedModel) -> GatedModel:
        if wanted.name in self.broken:
            raise NotWhatWasAdded(f"{wanted.name} has other bytes.")
        model = self.models.setdefault(wanted.name, GatedModel())
        model.version = wanted.name
        return model

    def wish(self, alias: str, name: str) -> None:
        self.wishes.models[alias] = model_named(name)
        self.wishes.changes += 1


def with_shelf(case: Callable[[Served, Shelf], Awaitable[None]], *, poll_seconds: float = 0.05) -> None:
    shelf = Shelf()

    async def run() -> None:
        async with serving(shelf.load, shelf.wishes, models_poll_seconds=poll_seconds) as served:
            await served.until_stats(state="ready")
            served.model = shelf.models["first"]
            try:
                await case(served, shelf)
            finally:
                for model in shelf.models.values():
                    model.gate.set()

    asyncio.run(run())


async def version_of(served: Served, alias: str = "default") -> str:
    body = {"model": alias, "input": "which?"}
    return str((await served.http.post("/v1/embeddings", json=body)).json()["model_version"])


def test_a_model_takes_anothers_place_while_requests_run_and_none_is_lost() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        first = await served.occupy()
        waiting = [asyncio.create_task(served.embed(f"before {n}")) for n in range(20)]
        await served.until_stats(requests=21)
        shelf.wish("default", "second")
        reloaded = await served.http.post("/v1/models:reload")
        assert reloaded.json()["aliases"]["default"] == {"outcome": "changed", "model": "second"}
        served.model.gate.set()
        answers = [await each for each in (first, *waiting)]
        assert {(answer.status_code, answer.json()["model_version"]) for answer in answers} == {(200, "first")}
        assert await version_of(served) == "second"

    # What is told to reload is not to find that it has been done.
    with_shelf(case, poll_seconds=60)


def test_a_change_of_the_models_folder_is_followed_without_being_told() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        shelf.wish("fast", "second")
        for _ in range(POLLS):
            cards = (await served.http.get("/v1/models")).json()["data"]
            if {card["id"] for card in cards} == {"default", "fast"}:
                break
            await asyncio.sleep(POLL_SECONDS)
        assert (await version_of(served), await version_of(served, "fast")) == ("first", "second")

    with_shelf(case)


def test_a_model_that_cannot_be_loaded_leaves_the_old_one_in_its_place_and_says_why() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        shelf.broken.add("second")
        shelf.wish("default", "second")
        answer = await served.http.post("/v1/models:reload")
        assert (answer.status_code, answer.json()["code"]) == (409, "activation_failed")
        assert "second has other bytes" in answer.json()["detail"]
        assert await version_of(served) == "first"
        assert (await served.http.get("/readyz")).status_code == 200
        assert (await served.http.get("/stats")).json()["problems"] == {"default": "second has other bytes."}

    with_shelf(case)


def test_a_service_that_is_started_after_a_refusal_takes_what_served_before() -> None:
    shelf = Shelf()
    shelf.broken.add("second")
    shelf.wishes.models["default"] = replace(model_named("second"), before=model_named("first"))

    async def run() -> None:
        async with serving(shelf.load, shelf.wishes, models_poll_seconds=0.05) as served:
            await served.until_stats(state="ready", problems={"default": "second has other bytes."})
            assert await version_of(served) == "first"
            shelf.broken.clear()
            assert (await served.http.post("/v1/models:reload")).status_code == 200
            assert await version_of(served) == "second"

    asyncio.run(run())


def test_a_model_whose_vectors_are_none_is_not_activated() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        broken = GatedModel()
        broken.vector = (float("nan"), 0.0)
        shelf.models["second"] = broken
        shelf.wish("default", "second")
        answer = await served.http.post("/v1/models:reload")
        assert answer.status_code == 409
        assert await version_of(served) == "first"

    with_shelf(case)


def test_an_alias_that_is_dropped_is_not_found_any_more() -> None:
    async def case(served: Served, shelf: Shelf) -> None:
        shelf.wish("fast", "second")
        assert (await served.http.post("/v1/models:reload")).status_code == 200
        assert await version_of(served, "fast") == "second"
        del shelf.wishes.models["fast"]
        dropped = await served.http.post("/v1/models:reload")
        assert dropped.json()["aliases"]["fast"]["outcome"] == "dropped"
        assert (await served.http.post("/v1/embeddings", json={"model": "fast", "input": "a"})).status_code == 404

    with_shelf(case)


def test_a_model_is_freed_once_its_last_request_is_answered() -> None:
    """Complaint 10."""

    async def case(served: Served, shelf: Shelf) -> None:
        first = await served.occupy()
        shelf.wish("default", "second")
        assert (await served.http.post("/v1/models:reload")).status_code == 200
        gate, old = served.model.gate, weakref.ref(served.model)
        served.model = shelf.models["second"]
        del shelf.models["first"]
        assert old() is not None
        gate.set()
        assert (await first).json()["model_version"] == "first"
        assert await version_of(served) == "second"
        await until(lambda: old() is None)

    with_shelf(case)


def test_a_model_for_which_there_is_no_memory_is_refused_before_its_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "vast").mkdir()
    (tmp_path / "vast" / "static.json").write_text("{}")
    store = ModelStore(tmp_path / "models")
    entry = store.add(tmp_path / "vast", Description(name="vast", type="embed", backend="static", dimension=3))
    manifest = tmp_path / "models" / "manifest.json"
    with running_service("emb", variables={"SLUICE_MODELS_FOLDER": str(tmp_path / "models")}) as service:
        store.activate("default", entry.key)
        listed = json.loads(manifest.read_text())
        listed["models"][0]["size"] = 10**15
        manifest.write_text(json.dumps(listed))
        refused = httpx.post(f"{service.url}/v1/models:reload", timeout=60)
        embedded = post(service, input="still here")

    assert (refused.status_code, refused.json()["code"]) == (409, "activation_failed")
    assert f"{entry.key} needs about 1907348696 MB beside the models that serve" in refused.json()["detail"]
    assert len(embedded.json()["data"][0]["embedding"]) == 384
