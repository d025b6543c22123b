"""What runs on GitHub: it calls what there is, with no rights and no secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))

each_file = pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.name
)


def steps(file: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@each_file
def test_it_calls_targets_of_make_that_there_are(file: Path) -> None:
    commands = "\n".join(step.get("run", "") for step in steps(file))
    called = set(re.findall(r"^make ([a-z-]+)", commands, flags=re.MULTILINE))

    assert called == {"lint", "test", "swarm-test"}
    assert called <= TARGETS


@each_file
def test_what_others_wrote_is_pinned_to_a_commit(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    for line in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


@each_file
def test_it_may_read_the_code_and_no_more(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert text.count("permissions:") == 1
    assert "secrets." not in text
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


@each_file
def test_no_job_runs_for_ever(file: Path) -> None:
    for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items():
        assert job["timeout-minutes"] <= 90, name


@each_file
def test_every_job_that_may_fail_leaves_its_log(file: Path) -> None:
    for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items():
        kept = [step for step in job["steps"] if step.get("if") == "failure()" and "upload-artifact" in str(step)]

        assert kept or name == "lint", name
