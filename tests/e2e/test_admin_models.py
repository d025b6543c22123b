"""The models folder over HTTP: what the command does, with the services that follow, by who may, and written down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from sluice.identity.roles import Role
from sluice.model_store.manifest import ModelEntry
from sluice.model_store.store import Description, ModelStore
from tests.e2e.api import Api, Json
from tests.e2e.embedding_models import add
from tests.e2e.running import HOME, Join, Member

PATH = "/api/admin/models"


@pytest.fixture
def boss(join: Join) -> Member:
    """Somebody who runs the platform."""
    return join(f"Owners {uuid4().hex}", Role.ADMIN)


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


def test_a_model_that_emb_cannot_load_is_refused_and_the_alias_means_again_what_it_meant(
    boss: Member, store: ModelStore, tmp_path: Path
) -> None:
    alias = f"trial-{uuid4().hex[:8]}"
    good = add(store, tmp_path, name="trial", vectors="a" * 12)
    (tmp_path / "nonsense").mkdir()
    (tmp_path / "nonsense" / "model.json").write_text("{}")
    described = Description(name="nonsense", type="embed", backend="openvino", dimension=384)
    bad = store.add(tmp_path / "nonsense", described)
    done(post(boss.api, f"/{good.key}:activate", alias=alias))

    refused = done(post(boss.api, f"/{bad.key}:activate", alias=alias))

    assert (refused["service"]["follows"], refused["service"]["model"]) == ("refused", str(good.key))
    assert (refused["model"], refused["previous"]) == (str(good.key), None)
    assert store.manifest().active("embed")[alias] == good
    log = boss.api.get("/api/admin/audit")["data"]
    assert [each["action"] for each in log] == ["model.refused", "model.activate", "model.activate"]
    assert log[0]["detail"]["model"] == str(bad.key)


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
