"""The models folder over HTTP: what the command does, with the services that follow, by who may, and written down."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from services.cli.exit_codes import Exit
from sluice.embedding_models.layout import BUILT_IN, MODEL_FILE, PROBE_FILE, TOKENIZER_FILE, Probe, read_probe, write
from sluice.identity.roles import Role
from sluice.model_store.manifest import ModelEntry
from sluice.model_store.store import Description, ModelStore
from tests.e2e.api import Api, Json
from tests.e2e.running import HOME, Join, Member

PATH = "/api/admin/models"
Sluice = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def boss(join: Join) -> Member:
    """Somebody who runs the platform."""
    return join(f"Owners {uuid4().hex}", Role.ADMIN)


@pytest.fixture
def sluice(boss: Member, api_url: str) -> Sluice:
    """The command, as that person runs it on the host of the models folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    account = {"SLUICE_URL": api_url, "SLUICE_TOKEN": boss.api.token, "SLUICE_MODELS_FOLDER": str(HOME / "models")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env=environment | account, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def store() -> Iterator[ModelStore]:
    """The models folder of the platform, as it was when the test is over."""
    store = ModelStore(HOME / "models")
    yield store
    for kind, aliases in store.manifest().aliases.items():
        for alias in aliases:
            store.forget_alias(kind, alias)
    for entry in store.manifest().models:
        store.remove(entry.key)


def add(store: ModelStore, folder: Path, *, name: str, vectors: str) -> ModelEntry:
    """The built-in model, in the form that every processor runs rightly, said to make other vectors; soon loaded."""
    copy = folder / f"{name}-{vectors}"
    copy.mkdir()
    described = json.loads((BUILT_IN / MODEL_FILE).read_text())
    (form,) = [each for each in described["forms"] if each["name"] == "f32"]
    network = Path(form["network"])
    for file in (TOKENIZER_FILE, network, network.with_suffix(".bin")):
        shutil.copyfile(BUILT_IN / file, copy / file)
    probe, texts = read_probe(BUILT_IN), 4
    vectors_of_texts = probe.content()[: texts * described["dimension"] * 4]
    shorter = Probe(texts=probe.texts[:texts], vectors=base64.b64encode(vectors_of_texts).decode())
    write(copy / PROBE_FILE, shorter)
    (copy / MODEL_FILE).write_text(json.dumps({**described, "forms": [form], "vectors": vectors}))
    return store.add(copy, Description(name=name, type="embed", backend="openvino", dimension=384, languages=("en",)))


def add_llm(store: ModelStore, folder: Path) -> ModelEntry:
    file = folder / "tiny.gguf"
    file.write_bytes(b"GGUF weights")
    return store.add(file, Description(name="tiny", type="llm", backend="llama_cpp", version="1"))


def post(api: Api, action: str, **body: str) -> httpx.Response:
    return api.http.post(f"{PATH}{action}", json=body)


def done(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return] # JSON


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def test_a_model_is_activated_and_rolled_back_while_emb_serves_and_all_of_it_is_written_down(
    boss: Member, store: ModelStore, tmp_path: Path
) -> None:
    alias = f"trial-{uuid4().hex[:8]}"
    first, second = (add(store, tmp_path, name="trial", vectors=vectors) for vectors in ("a" * 12, "b" * 12))

    activated = done(post(boss.api, f"/{first.key}:activate", alias=alias))
    exchanged = done(post(boss.api, f"/{second.key}:activate", alias=alias))
    rolled_back = done(post(boss.api, ":rollback", alias=alias, type="embed"))

    meant = [(each["model"], each["previous"]) for each in (activated, exchanged, rolled_back)]
    assert meant == [(str(first.key), None), (str(second.key), str(first.key)), (str(first.key), str(second.key))]
    for each in (activated, exchanged, rolled_back):
        assert each["service"] == {"follows": "serving", "model": each["model"], "problem": None}
        assert each["outdated"] is None, "no document is indexed under this alias"
    listed = boss.api.get(PATH)
    assert {each["model"]: (each["size"], each["sha256"], each["aliases"]) for each in listed["models"]} == {
        str(first.key): (first.size, first.sha256, {alias: "active"}),
        str(second.key): (second.size, second.sha256, {alias: "previous"}),
    }
    assert {"alias": alias, "type": "embed", **dict(zip(("model", "previous"), meant[-1], strict=True))} in listed[
        "aliases"
    ]
    (emb,) = [service for service in listed["services"] if service["type"] == "embed"]
    assert emb["state"] == "ready"
    served = {each["alias"]: (each["model"], each["vectors"]) for each in emb["models"]}
    assert served[alias][0] == str(first.key)
    assert served["default"][1] != served[alias][1]
    log = boss.api.get("/api/admin/audit")["data"]
    assert [each["action"] for each in log] == ["model.rollback", "model.activate", "model.activate"]
    assert log[0]["detail"] == {
        "alias": alias, "type": "embed", "model": str(first.key), "previous": str(second.key),
    }  # fmt: skip
    assert log[0]["actor"] == boss.email


def test_a_model_goes_once_no_alias_needs_it(boss: Member, store: ModelStore, tmp_path: Path) -> None:
    entry = add_llm(store, tmp_path)
    store.activate("somebody", entry.key)

    in_use = boss.api.http.delete(f"{PATH}/tiny")
    store.forget_alias("llm", "somebody")
    gone = boss.api.http.delete(f"{PATH}/tiny")
    again = boss.api.http.delete(f"{PATH}/tiny")

    assert refusal(in_use) == (409, "conflict")
    assert "somebody" in in_use.json()["detail"]
    assert (gone.status_code, gone.content) == (204, b"")
    assert refusal(again) == (404, "model_not_found")
    assert not (store.folder / entry.path).exists()
    assert [each["action"] for each in boss.api.get("/api/admin/audit")["data"]] == ["model.delete"]


def test_files_that_are_not_what_was_added_are_found_and_not_activated(
    boss: Member, store: ModelStore, tmp_path: Path
) -> None:
    entry = add_llm(store, tmp_path)
    whole = done(post(boss.api, "/tiny:verify"))
    (store.folder / entry.path).write_bytes(b"GGUF-weights")

    changed = done(post(boss.api, "/tiny@1:verify"))
    refused = post(boss.api, "/tiny:activate", alias="broken")

    assert whole == {"model": "tiny@1", "intact": True, "problem": None}
    assert (changed["intact"], "SHA-256" in changed["problem"]) == (False, True)
    assert refusal(refused) == (409, "model_changed")
    assert "broken" not in store.manifest().aliases.get("llm", {})
    assert [each["action"] for each in boss.api.get("/api/admin/audit")["data"]] == ["model.verify", "model.verify"]


def test_what_cannot_be_is_refused_with_what_there_is(boss: Member, store: ModelStore, tmp_path: Path) -> None:
    add_llm(store, tmp_path)

    unknown, no_alias = post(boss.api, "/tiny@2:activate"), post(boss.api, ":rollback", alias="nobody")
    bad_alias, bad_type = (
        post(boss.api, "/tiny:activate", alias="a/b"),
        post(boss.api, ":rollback", type="image"),
    )

    assert refusal(unknown) == (404, "model_not_found")
    assert "tiny@1" in unknown.json()["detail"]
    assert refusal(no_alias) == (404, "alias_not_found")
    assert refusal(bad_alias) == refusal(bad_type) == (422, "invalid")


def test_a_language_model_that_llm_s_settings_do_not_follow_is_said_not_to_be_served(
    boss: Member, store: ModelStore, tmp_path: Path
) -> None:
    entry = add_llm(store, tmp_path)

    service = done(post(boss.api, "/tiny:activate"))["service"]

    assert (service["follows"], service["model"]) == ("another", "extractive")
    assert store.manifest().active("llm") == {"default": entry}


def test_a_broken_manifest_is_listed_as_a_problem_and_nothing_is_changed(boss: Member, store: ModelStore) -> None:
    manifest = store.folder / "manifest.json"
    kept = manifest.read_bytes() if manifest.exists() else None
    manifest.write_text('{"schema": 1, "models": 7}')
    try:
        listed, refused = boss.api.get(PATH), post(boss.api, "/tiny:activate")
    finally:
        manifest.unlink()
        if kept is not None:
            manifest.write_bytes(kept)

    assert listed["models"] == []
    assert "manifest.json cannot be used" in listed["problem"]
    assert {service["type"] for service in listed["services"]} == {"embed", "llm"}
    assert refusal(refused) == (409, "manifest_unreadable")


def test_a_folder_that_the_api_may_not_change_is_said_to_be_so(boss: Member, store: ModelStore, tmp_path: Path) -> None:
    add_llm(store, tmp_path)
    lock = store.folder / ".lock"
    lock.unlink()
    lock.mkdir()
    try:
        refused, read = post(boss.api, "/tiny:activate"), post(boss.api, "/tiny:verify")
    finally:
        lock.rmdir()

    assert refusal(refused) == (409, "models_folder_unusable")
    assert read.status_code == 200


def test_the_models_are_the_platform_s_and_what_they_left_behind_is_the_tenant_s(join: Join) -> None:
    tenant = f"Tenants {uuid4().hex}"
    join(tenant, Role.ADMIN)
    head = join(tenant, Role.TENANT_ADMIN).api

    refused = head.http.get(PATH)

    assert refusal(refused) == (403, "not_allowed")
    assert refused.json()["needed_role"] == "admin"
    assert head.get(f"{PATH}/outdated").keys() == {"models", "documents", "outdated", "sources"}


def test_an_alias_of_the_index_that_moves_says_which_sources_to_index_again(
    boss: Member, store: ModelStore, tmp_path: Path, sluice: Sluice
) -> None:
    """Nothing is indexed while the default alias means another model: the other tests' documents are not to wait."""
    source = boss.api.new_source()
    for number in range(2):
        boss.api.ingested(source, f"{number}.txt", f"Ship {number} {uuid4().hex} left the harbour.".encode())
    assert boss.api.get(f"{PATH}/outdated")["outdated"] == 0
    first, second = (add(store, tmp_path, name="moved", vectors=uuid4().hex[:12]) for _ in range(2))
    try:
        by_command = sluice("models", "activate", str(first.key))
        over_http = done(post(boss.api, f"/{second.key}:activate"))
        back = sluice("models", "rollback")
        shown = sluice("models", "outdated")
        listed = boss.api.get(PATH)["outdated"]
    finally:
        store.forget_alias("embed", "default")
    until(lambda: boss.api.get(f"{PATH}/outdated")["outdated"] == 0)

    for run in (by_command, back, shown):
        assert run.returncode == Exit.OK, run.stderr
        assert "2 of 2 documents are found by their words alone" in run.stderr
        assert "sluice sources reindex" in run.stderr
    assert by_command.stdout.split() == ["default", "embed", str(first.key), "-"]
    assert "2 of 2 documents are left behind." in by_command.stderr
    assert shown.stdout.split()[-2:] == ["2", "2"]
    outdated = over_http["outdated"]
    assert (outdated["documents"], outdated["outdated"]) == (2, 2)
    assert outdated["models"] == {"default": str(second.key)}
    (behind,) = outdated["sources"]
    assert (behind["source_id"], behind["outdated"], behind["by_alias"]) == (source, 2, {"default": 2})
    assert behind["reindex"] == f"/api/admin/sources/{source}:reindex"
    assert listed == {**outdated, "models": {"default": str(first.key)}}


def until(condition: Callable[[], bool]) -> None:
    """EMB looks at the models folder every two seconds."""
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it never came to that")
