"""The model behind an alias is exchanged while requests run."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from services.llm.backends.extractive import ExtractiveBackend
from services.llm.candidate import Candidate
from services.llm.catalog import FixedModel
from services.llm.host import ModelHost
from services.llm.metrics import LlmMetrics
from sluice.errors import Conflict
from sluice.model_store.manifest import Version
from sluice.model_store.store import Description, ModelStore
from sluice.settings import LlmServiceSettings
from sluice.testing.service_process import running_service
from tests.gguf_models import TINY, write_model
from tests.integration.llm_models import POLL_SECONDS, POLLS, Llm, chunks

GREEN = {"name": "green", "version": "1"}
BLUE = {"name": "blue", "version": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    found = {
        name: write_model(folder / f"{name}.gguf", TINY, seed=seed, name=name)
        for seed, name in enumerate(("blue", "green"), start=1)
    }
    found["broken"] = folder / "broken.gguf"
    found["broken"].write_bytes(found["blue"].read_bytes()[:300_000])
    found["infinite"] = folder / "infinite.gguf"
    shutil.copyfile(found["blue"], found["infinite"])
    weights = next(t for t in GGUFReader(found["infinite"], "r+").tensors if t.name == "output_norm.weight")
    weights.data[:] = np.nan
    return found


@pytest.fixture(scope="module")
def pristine(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with all of them, in which `default` means blue."""
    store = ModelStore(tmp_path_factory.mktemp("pristine"))
    for name, file in files.items():
        store.add(file, Description(name=name, type="llm", backend="llama_cpp", version="1"))
    store.activate("default", Version(**BLUE))
    return store.folder


@pytest.fixture(scope="module")
def service(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelStore, Llm]]:
    store = ModelStore(tmp_path_factory.mktemp("models"))
    _restore(store, pristine)
    settings = {"backend": "manifest", "context_tokens": 4096, "models_poll_seconds": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_MODELS_FOLDER", str(store.folder))
        with running_service("llm", **settings) as running, Llm(running) as client:
            yield store, client


@pytest.fixture
def store(service: tuple[ModelStore, Llm], pristine: Path) -> ModelStore:
    """The models folder of the service, as if no test had touched it, and blue loaded."""
    store, llm = service
    _restore(store, pristine)
    llm.until(lambda s: s["name"] == "blue@1" and not s["refused"] and not s["leaving"])
    return store


@pytest.fixture
def llm(service: tuple[ModelStore, Llm], store: ModelStore) -> Llm:
    assert service[0] is store
    return service[1]


def _restore(store: ModelStore, pristine: Path) -> None:
    """Models first: what the manifest says is read as soon as it is there."""
    shutil.copytree(pristine, store.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    fresh = store.folder / ".restored"
    shutil.copyfile(pristine / "manifest.json", fresh)
    fresh.replace(store.folder / "manifest.json")


def activate(llm: Llm, wanted: dict[str, str] | None = None, alias: str = "default") -> tuple[int, dict[str, str]]:
    for _ in range(POLLS):
        answer = llm.http.post(f"/v1/models/{alias}:activate", content=json.dumps(wanted) if wanted else b"")
        # LLM may be looking at a manifest that an earlier test has changed.
        if answer.json().get("code") != "activation_running":
            break
        time.sleep(POLL_SECONDS)
    return answer.status_code, answer.json()


def test_streams_end_with_the_model_they_began_with_and_new_ones_have_the_new_one(llm: Llm) -> None:
    with ThreadPoolExecutor(6) as clients:
        running = [clients.submit(llm.ask, f"stream {n}", stream=True, max_tokens=1500) for n in range(6)]
        llm.until(lambda s: s["model"]["sequences_busy"] == 6)

        assert activate(llm, GREEN) == (200, {"alias": "default", "model": "green@1"})
        assert llm.stats()["leaving"] == 1
        assert llm.ask(max_tokens=2).json()["model"] == "green@1"
        streams = [chunks(each.result().text) for each in running]

    assert [stream[-1] for stream in streams] == ["[DONE]"] * 6
    assert {chunk["model"] for stream in streams for chunk in stream[:-1]} == {"blue@1"}
    assert {stream[-2]["choices"][0]["finish_reason"] for stream in streams} == {"length"}
    llm.until(lambda s: s["leaving"] == 0)


def test_the_manifest_is_followed_there_and_back(llm: Llm, store: ModelStore) -> None:
    blue = llm.text(max_tokens=10)
    store.activate("default", Version(**GREEN))
    llm.until(lambda s: s["name"] == "green@1")
    assert llm.text(max_tokens=10) != blue

    store.rollback("llm", "default")
    assert activate(llm)[0] == 200
    assert llm.stats()["name"] == "blue@1"
    assert llm.text(max_tokens=10) == blue
    (card,) = llm.http.get("/v1/models").json()["data"]
    assert (card["id"], card["version"], card["backend"]) == ("default", "blue@1", "llama_cpp")


def test_a_model_that_cannot_answer_changes_nothing(llm: Llm) -> None:
    before = llm.text(max_tokens=5)

    for wanted, status, code in (
        ({"name": "broken", "version": "1"}, 409, "model_unusable"),
        ({"name": "infinite", "version": "1"}, 409, "model_unusable"),
        ({"name": "nobody", "version": "1"}, 404, "model_not_found"),
        ({"name": "../blue", "version": "1"}, 422, "invalid"),
        ({"name": "green"}, 422, "invalid"),
    ):
        found, problem = activate(llm, wanted)
        assert (found, problem["code"]) == (status, code)
    status, problem = activate(llm, alias="another")
    assert (status, problem["code"]) == (404, "alias_not_found")

    assert llm.text(max_tokens=5) == before
    assert llm.http.get("/readyz").status_code == 200


def test_a_file_that_was_changed_after_it_was_added_is_not_loaded(llm: Llm, store: ModelStore) -> None:
    place = store.folder / store.manifest().entry(Version(**GREEN)).path
    content = bytearray(place.read_bytes())
    content[-100] ^= 1
    place.write_bytes(content)

    status, problem = activate(llm, GREEN)

    assert (status, problem["code"]) == (409, "model_changed")
    assert "SHA-256" in problem["detail"]
    assert llm.stats()["name"] == "blue@1"


def test_a_manifest_that_leads_to_a_broken_model_is_reported_and_the_old_model_goes_on(
    llm: Llm, store: ModelStore
) -> None:
    store.activate("default", Version(name="broken", version="1"))

    assert "broken.gguf" in llm.until(lambda s: s["refused"])["refused"]
    assert llm.text(max_tokens=2)


def test_a_manifest_that_leads_out_of_the_folder_is_refused_and_the_old_model_goes_on(
    llm: Llm, store: ModelStore
) -> None:
    manifest = store.folder / "manifest.json"
    path = store.manifest().entry(Version(**GREEN)).path
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(path, "../../etc/passwd"), encoding="utf-8")

    assert "inside of the models folder" in llm.until(lambda s: s["refused"])["refused"]
    assert activate(llm, GREEN)[0] == 409
    assert llm.text(max_tokens=2)


def test_models_that_left_give_their_memory_back(llm: Llm) -> None:
    """Complaint 10."""

    def switch(times: int) -> int:
        for number in range(times):
            assert activate(llm, (GREEN, BLUE)[number % 2])[0] == 200
            assert llm.text(max_tokens=3)
        llm.until(lambda s: s["leaving"] == 0)
        pages = Path(f"/proc/{llm.service.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * 4096

    assert switch(20) < switch(4) * 1.05


# In this process, with what a model needs and what there is made up.


def test_a_model_for_which_there_is_no_memory_is_refused_with_figures() -> None:
    sizes = iter([0, 5 * 1024**3])
    names = iter(["small", "large"])

    class TwoModels(FixedModel):
        def wanted(self) -> Candidate:
            size = next(sizes)
            return Candidate(next(names), lambda: ExtractiveBackend(1000), lambda: size)

    async def case() -> None:
        catalog = TwoModels(Candidate("", lambda: ExtractiveBackend(1000)))
        host = ModelHost(catalog, LlmServiceSettings(), LlmMetrics(), available=lambda: 3 * 1024**3)
        await host.start()
        with pytest.raises(Conflict) as refused:
            await host.activate()
        assert refused.value.code == "not_enough_memory"
        assert "5120 MB" in refused.value.detail
        assert "3072 MB" in refused.value.detail
        assert host.current.name == "small"
        await host.close()

    asyncio.run(case())


async def until(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came to that")


def test_a_failure_that_nobody_foresaw_does_not_end_the_following() -> None:
    class Moody(FixedModel):
        changes = 0

        def changed_at(self) -> tuple[int, int]:
            return self.changes, 0

        def wanted(self) -> Candidate:
            if self.changes == 1:
                raise ZeroDivisionError
            return Candidate(f"model {self.changes}", lambda: ExtractiveBackend(1000))

    async def case() -> None:
        catalog = Moody(Candidate("", lambda: ExtractiveBackend(1)))
        host = ModelHost(catalog, LlmServiceSettings(models_poll_seconds=0.01), LlmMetrics())
        await host.start()
        following = asyncio.create_task(host.follow())
        catalog.changes = 1
        await until(lambda: "ZeroDivisionError" in str(host.stats()["refused"]))
        assert host.current.name == "model 0"
        catalog.changes = 2
        await until(lambda: host.current.name == "model 2")
        following.cancel()
        await asyncio.wait({following})
        await host.close()

    asyncio.run(asyncio.wait_for(case(), 30))


def test_a_change_of_the_manifest_during_an_exchange_is_followed_after_it() -> None:
    loading = threading.Event()

    def slowly() -> ExtractiveBackend:
        loading.wait(20)
        return ExtractiveBackend(1000)

    class Changing(FixedModel):
        changes = 0

        def changed_at(self) -> tuple[int, int]:
            return self.changes, 0

        def wanted(self) -> Candidate:
            return Candidate(f"model {self.changes}", slowly if self.changes == 1 else lambda: ExtractiveBackend(1000))

    async def case() -> None:
        catalog = Changing(Candidate("", lambda: ExtractiveBackend(1)))
        host = ModelHost(catalog, LlmServiceSettings(models_poll_seconds=0.01), LlmMetrics())
        await host.start()
        following = asyncio.create_task(host.follow())
        catalog.changes = 1
        await asyncio.sleep(0.1)
        catalog.changes = 2
        await asyncio.sleep(0.1)
        loading.set()
        await until(lambda: host.current.name == "model 2")
        assert host.stats()["refused"] is None
        following.cancel()
        await asyncio.wait({following})
        await host.close()

    asyncio.run(asyncio.wait_for(case(), 60))


def test_two_exchanges_at_once_are_one_and_a_refusal() -> None:
    class Slow(FixedModel):
        count = 0

        def wanted(self) -> Candidate:
            Slow.count += 1
            return Candidate(f"model {Slow.count}", lambda: ExtractiveBackend(1000))

    async def case() -> None:
        host = ModelHost(Slow(Candidate("", lambda: ExtractiveBackend(1))), LlmServiceSettings(), LlmMetrics())
        await host.start()
        found = await asyncio.gather(host.activate(), host.activate(), return_exceptions=True)
        assert [type(one) for one in found].count(Conflict) == 1
        assert host.current.name == "model 2"
        await host.close()

    asyncio.run(case())


@pytest.fixture
def shelved(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """A models folder of its own, for services that are not started yet."""
    store = ModelStore(tmp_path / "models")
    store.folder.mkdir()
    _restore(store, pristine)
    monkeypatch.setenv("SLUICE_MODELS_FOLDER", str(store.folder))
    return store


def test_a_service_that_is_started_after_a_refusal_takes_what_answered_before(shelved: ModelStore) -> None:
    shelved.activate("default", Version(name="broken", version="1"))

    with running_service("llm", backend="manifest", models_poll_seconds=0.1) as running, Llm(running) as client:
        assert client.ask(max_tokens=2).json()["model"] == "blue@1"
        assert "broken.gguf" in client.stats()["refused"]
        shelved.activate("default", Version(**GREEN))
        client.until(lambda s: s["name"] == "green@1" and not s["refused"])


def test_a_first_model_that_cannot_be_loaded_leaves_the_quotations(shelved: ModelStore) -> None:
    shelved.forget_alias("llm", "default")
    shelved.activate("default", Version(name="broken", version="1"))

    with running_service("llm", backend="manifest") as running, Llm(running) as client:
        assert client.stats()["name"] == "extractive"
        assert "broken.gguf" in client.stats()["refused"]
