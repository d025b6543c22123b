"""A platform that indexes and searches under two aliases: an API and a worker that know both, and a second EMB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from infra.embedded.platform import Platform
from services.cli.exit_codes import Exit
from sluice.documents.erase import Left
from sluice.identity.roles import Role
from sluice.model_store.store import ModelStore
from sluice.testing.service_process import ServiceProcess, running_service
from tests.e2e.api import Api, Json
from tests.e2e.embedding_models import add
from tests.e2e.running import PASSWORD, Join, Member, Stores

SECOND = "dense:second"
SENTENCES = [
    "The physician examined the child and prescribed rest.",
    "The ferry to the island leaves at noon on Sundays.",
    "Simmer the onions until they are golden.",
]


@dataclass(frozen=True)
class TwoAliases:
    """The way in, the second EMB, and a source that was indexed before there was a second alias."""

    api: Api
    url: str
    emb: ServiceProcess
    models: ModelStore
    source: str
    older: Json

    def sluice(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command, as the member runs it on the host of the models folder."""
        account = {
            "SLUICE_URL": self.url, "SLUICE_TOKEN": self.api.token, "SLUICE_MODELS_FOLDER": str(self.models.folder),
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env=os.environ | account, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def member(join: Join) -> Member:
    return join(f"Two aliases {uuid4().hex}", Role.ADMIN)


@pytest.fixture(scope="module")
def two(
    platform: Platform, variables: dict[str, str], member: Member, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TwoAliases]:
    source = member.api.new_source()
    older = member.api.ingested(source, "older.txt", SENTENCES[0].encode())
    folder = tmp_path_factory.mktemp("two-aliases")
    models = ModelStore(folder / "models")
    models.folder.mkdir()
    platform.stop("worker")
    try:
        with second_emb(models) as emb:
            settings = {
                **variables,
                "SLUICE_EMB_MORE_ALIASES": json.dumps({"second": {"url": emb.url, "languages": ["en"]}}),
                "SLUICE_MODELS_FOLDER": str(models.folder),
            }
            with (
                worker({**os.environ, **settings}, folder / "worker.log"),
                api_process(settings) as service,
                Api.signed_in(service.url, member.email, PASSWORD) as api,
            ):
                yield TwoAliases(api, service.url, emb, models, source, older)
    finally:
        platform.start("worker")


@contextmanager
def second_emb(models: ModelStore) -> Iterator[ServiceProcess]:
    """An EMB whose vectors are PyTorch's: of another version than OpenVINO's, and meaning the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_MODELS_FOLDER", str(models.folder))
        with running_service(
            "emb", backend="sentence_transformers", alias="second", models_poll_seconds=0.5
        ) as service:
            yield service


@contextmanager
def worker(environment: dict[str, str], log_file: Path) -> Iterator[None]:
    """A worker of these settings."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.workers.main", "--concurrency", "1"],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def api_process(settings: dict[str, str]) -> Iterator[ServiceProcess]:
    """An API of these settings, on a port of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        with running_service("api") as service:
            yield service


def test_what_was_indexed_before_there_was_a_second_alias_is_left_behind_until_it_is_indexed_again(
    two: TwoAliases, stores: Stores, member: Member
) -> None:
    before = two.api.search(two.source, "Who told the child to rest?")
    outdated = two.api.get("/api/admin/models/outdated")

    job = two.api.http.post(f"/api/admin/sources/{two.source}:reindex").raise_for_status().json()
    two.api.wait(job["id"])
    until_none_is_outdated(two.api)

    # Nothing is in the second index yet, unless an earlier run on the same platform has left something.
    assert before["degraded"] in ([], [SECOND])
    assert before["passages"][0]["text"] == SENTENCES[0]
    assert SECOND not in before["passages"][0]["scores"]
    (behind,) = outdated["sources"]
    assert behind["by_alias"] == {"default": 0, "second": 1}
    found = two.api.search(two.source, "Who told the child to rest?")
    assert found["degraded"] == []
    assert SECOND in found["passages"][0]["scores"]


def test_a_document_is_found_by_both_models_and_erased_from_both(
    two: TwoAliases, stores: Stores, member: Member
) -> None:
    source = two.api.new_source()
    documents = [two.api.ingested(source, f"{n}.txt", text.encode()) for n, text in enumerate(SENTENCES)]

    found = two.api.search(source, "The doctor saw a young patient.")
    chosen = two.api.search(source, "The doctor saw a young patient.", fusion="sum")
    answer = two.api.ask(source, "When does the ferry to the island leave?")

    assert found["degraded"] == []
    assert found["milliseconds"].keys() == {"dense", SECOND, "lexical", "total"}
    best = found["passages"][0]
    assert best["text"] == SENTENCES[0]
    assert {"dense", SECOND} <= best["scores"].keys()
    # No word is shared: the first of two legs by meaning, at most the first of two by words.
    assert 2 / 61 <= best["score"] <= 4 / 61 + 1e-9
    assert chosen["passages"][0]["text"] == SENTENCES[0]
    assert chosen["passages"][0]["score"] > best["score"]
    assert "leaves at noon" in answer.text
    ids = [UUID(document["id"]) for document in documents]
    assert [stores.index.count_document(member.tenant_id, each) for each in ids] == [3, 3, 3]
    for each in ids:
        receipt = two.api.http.delete(f"/api/documents/{each}").raise_for_status().json()
        assert Left(receipt["rows"], receipt["points"], receipt["objects"]) == Left(0, 0, 0)
    assert [stores.index.count_document(member.tenant_id, each) for each in ids] == [0, 0, 0]


def test_an_alias_that_moves_says_which_sources_to_index_again_and_then_they_are(
    two: TwoAliases, tmp_path: Path, member: Member
) -> None:
    source = two.api.new_source()
    for number, text in enumerate(SENTENCES[1:]):
        two.api.ingested(source, f"{number}.txt", text.encode())
    assert two.api.get("/api/admin/models/outdated")["outdated"] == 0
    first, second = (add(two.models, tmp_path, name="moved", vectors=uuid4().hex[:12]) for _ in range(2))

    by_command = two.sluice("models", "activate", str(first.key), "--alias", "second")
    over_http = two.api.http.post(f"/api/admin/models/{second.key}:activate", json={"alias": "second"}).json()
    back = two.sluice("models", "rollback", "second")
    listed = two.sluice("models", "outdated", "--json")
    found = two.api.search(source, "When does the ferry leave?")

    for run in (by_command, back):
        assert run.returncode == Exit.OK, run.stderr
        assert ": 2 of 2 documents are left behind." in run.stderr
        assert "documents are found by their words alone" in run.stderr
        assert "sluice sources reindex" in run.stderr
    assert by_command.stdout.split() == ["second", "embed", str(first.key), "-"]
    assert over_http["service"] == {"follows": "serving", "model": str(second.key), "problem": None}
    assert over_http["outdated"]["models"]["second"] == str(second.key)
    outdated = json.loads(listed.stdout)
    assert outdated["models"]["second"] == str(first.key)
    for each in (over_http["outdated"], outdated):
        assert each["outdated"] == each["documents"] >= 2
        (behind,) = [one for one in each["sources"] if one["source_id"] == source]
        assert (behind["documents"], behind["by_alias"]) == (2, {"default": 0, "second": 2})
        assert behind["reindex"] == f"/api/admin/sources/{source}:reindex"
    assert found["degraded"] == [SECOND], "nothing is indexed by the model of now"

    for one in outdated["sources"]:
        assert two.sluice("sources", "reindex", one["source_id"]).returncode == Exit.OK
    until_none_is_outdated(two.api)

    again = two.api.search(source, "When does the ferry leave?")
    assert again["degraded"] == []
    assert SECOND in again["passages"][0]["scores"]


def until_none_is_outdated(api: Api) -> None:
    """The documents' own jobs go on after that of their source."""
    deadline = time.monotonic() + 90
    while (found := api.get("/api/admin/models/outdated"))["outdated"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


# The last one: it ends the second EMB.


def test_without_the_second_emb_search_answers_and_names_it_and_uploads_wait(two: TwoAliases) -> None:
    source = two.api.new_source()
    two.api.ingested(source, "0.txt", SENTENCES[1].encode())
    two.emb.terminate()
    two.emb.exit_code()

    found = two.api.search(source, "When does the ferry leave?")
    answer = two.api.ask(source, "When does the ferry leave?")
    # What nobody has embedded yet: known vectors would be taken from the cache.
    accepted = two.api.accepted(source, "1.txt", f"Box {uuid4().hex} is in the cellar.".encode())
    waiting = two.api.wait_for(accepted["job_id"], lambda job: job["error"] is not None)

    assert found["degraded"] == [SECOND]
    assert found["passages"][0]["text"] == SENTENCES[1]
    assert answer.the("retrieval.result")["degraded"] == [SECOND]
    assert waiting["state"] in {"queued", "running"}
    assert waiting["error"]["code"] == "embedder_unavailable"
    assert two.api.http.get("/api/admin/models/outdated").json()["code"] == "embedder_unavailable"
    two.api.http.post(f"/api/admin/jobs/{accepted['job_id']}:cancel").raise_for_status()
