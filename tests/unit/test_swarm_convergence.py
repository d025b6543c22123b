"""When a stack has become what it was told to be, and what is taken back when it cannot."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.swarm import commands, convergence, versions
from infra.swarm.docker import DeployError, Docker
from infra.swarm.release import Release
from tests.e2e.running import ROOT

Json = dict[str, Any]


class FakeEngine(Docker):
    """An engine that says what it was told to say, and remembers what it was asked to do."""

    def __init__(self, services: Mapping[str, Json], tasks: Mapping[str, list[Json]]) -> None:
        super().__init__()
        self.services = services
        self.tasks = tasks
        self.secrets: list[Json] = []
        self.done: list[tuple[str, ...]] = []

    def call(self, *arguments: str, timeout: float = 600, environment: Mapping[str, str] | None = None) -> str:
        if arguments[:2] == ("service", "ls"):
            return "\n".join(self.services)
        self.done.append(arguments)
        return ""

    def rows(self, *arguments: str) -> list[Json]:
        if arguments[:2] == ("service", "ps"):
            return self.tasks[arguments[-1]]
        return [{"Name": each["Spec"]["Name"]} for each in self.secrets] if arguments[0] == "secret" else []

    def inspect(self, kind: str, names: Sequence[str]) -> list[Json]:
        if kind == "service":
            return [self.services[name] for name in names]
        return [each for each in self.secrets if each["Spec"]["Name"] in names]


def service(name: str, *, update: str = "", previous: bool = True, replicas: int = 1, one_shot: bool = False) -> Json:
    return {
        "Spec": {
            "Name": name,
            "Labels": {"sluice.one-shot": "true"} if one_shot else {},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {},
        },
        "PreviousSpec": {} if not previous else {"Name": name},
        "UpdateStatus": {"State": update} if update else None,
    }


def task(state: str, identity: str, *, wanted: str = "Running", error: str = "") -> Json:
    return {
        "ID": identity,
        "Name": "api.1",
        "CurrentState": f"{state} 1 second ago",
        "DesiredState": wanted,
        "Error": error,
    }


def engine(state: Json, *tasks: Json) -> FakeEngine:
    name = state["Spec"]["Name"]
    return FakeEngine({name: state}, {name: list(tasks)})


def wait(docker: Docker, **options: Any) -> None:
    convergence.wait(docker, "sluice", seconds=0.1, say=lambda _: None, **options)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "_POLL_SECONDS", 0.0)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(ROOT, "sluice", tmp_path)


def test_running_as_many_as_wanted_is_enough() -> None:
    wait(engine(service("sluice_api"), task("Running", "a"), task("Failed", "b", wanted="Shutdown")))


def test_a_service_that_was_scaled_to_nothing_is_there_too() -> None:
    wait(engine(service("sluice_api", replicas=0)))


def test_a_one_shot_is_there_when_its_newest_task_is_complete() -> None:
    wait(engine(service("sluice_migrate", one_shot=True), task("Complete", "a", wanted="Shutdown")))

    with pytest.raises(DeployError, match="did not converge"):
        wait(engine(service("sluice_migrate", one_shot=True), task("Failed", "b"), task("Complete", "a")))


def test_an_update_that_the_engine_took_back_is_an_error_unless_it_is_an_old_one() -> None:
    docker = engine(service("sluice_api", update="rollback_completed"), task("Running", "a"))

    with pytest.raises(DeployError, match="sluice_api was taken back"):
        wait(docker)
    wait(docker, ignoring={"sluice_api"})


def test_what_can_never_start_is_said_at_once_with_the_engines_words() -> None:
    rejected = [task("Rejected", each, error="No such image") for each in "abc"]

    with pytest.raises(DeployError, match=r"(?s)cannot start on any node.*No such image"):
        wait(engine(service("sluice_api"), *rejected))


def test_rejections_of_an_earlier_deploy_do_not_fail_the_one_that_mends_them() -> None:
    old = [task("Rejected", each, wanted="Shutdown") for each in "abc"]

    wait(engine(service("sluice_api"), task("Running", "d"), *old), known_tasks=frozenset("abc"))
    with pytest.raises(DeployError, match="did not converge"):
        wait(engine(service("sluice_api"), task("Starting", "d"), *old), known_tasks=frozenset("abc"))


def test_rolling_back_leaves_alone_what_was_taken_back_already(release: Release) -> None:
    docker = FakeEngine(
        {"sluice_api": service("sluice_api", update="rollback_completed"), "sluice_emb": service("sluice_emb")},
        {"sluice_api": [task("Running", "a")], "sluice_emb": [task("Running", "b")]},
    )

    commands._rollback(docker, release, Namespace(timeout=1.0))

    assert docker.done == [("service", "rollback", "--detach", "sluice_emb")]


def test_with_nothing_to_roll_back_to_it_says_so(release: Release) -> None:
    with pytest.raises(DeployError, match="No service of sluice has a previous definition"):
        commands._rollback(engine(service("sluice_api", previous=False)), release, Namespace(timeout=1.0))


def test_two_versions_of_a_secret_are_kept_and_other_secrets_are_not_touched() -> None:
    docker = FakeEngine({}, {})
    docker.secrets = [
        {"Spec": {"Name": f"sluice_redis_url_{number:012x}"}, "CreatedAt": f"2026-01-0{number}T00:00:00Z"}
        for number in (1, 2, 3)
    ] + [{"Spec": {"Name": "sluice_of_somebody"}, "CreatedAt": "2026-01-01T00:00:00Z"}]

    removed = versions.prune(docker, "sluice")

    assert removed == ["sluice_redis_url_000000000001"]
    assert docker.done == [("secret", "rm", "sluice_redis_url_000000000001")]
