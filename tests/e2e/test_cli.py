"""The `sluice` command as a person or a script uses it: what it prints, where, and the status that it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from services.cli.exit_codes import Exit
from tests.e2e.running import HOME, PASSWORD, Member

Run = subprocess.CompletedProcess[str]
Sluice = Callable[..., Run]
SENTENCE: Final = "The ferry to the island leaves at noon on Sundays."


@pytest.fixture
def sluice(tmp_path: Path) -> Sluice:
    """Run the command with a configuration folder of its own."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> Run:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env={**inherited, "XDG_CONFIG_HOME": str(tmp_path / "config"), "COLUMNS": "200", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def signed_in(sluice: Sluice, api_url: str, editor: Member) -> Sluice:
    """The command, after `sluice login`."""
    done = sluice("login", "--url", api_url, "--email", editor.email, "--password-stdin", stdin=f"{PASSWORD}\n")

    assert done.returncode == Exit.OK, done.stderr
    return sluice


def test_login_without_options_takes_the_platform_of_the_folder(sluice: Sluice, api_url: str) -> None:
    done = sluice("login", SLUICE_HOME=str(HOME))

    assert (done.returncode, done.stdout) == (Exit.OK, "")
    assert api_url in done.stderr


def test_a_wrong_password_is_a_sentence_and_the_status_for_it(sluice: Sluice, api_url: str) -> None:
    done = sluice("login", "--url", api_url, "--email", "a@b.example", "--password-stdin", stdin="no\n")

    assert (done.returncode, done.stdout) == (Exit.NOT_SIGNED_IN, "")
    assert "wrong_credentials" in done.stderr


def test_a_file_is_uploaded_listed_found_cited_and_erased(signed_in: Sluice, tmp_path: Path) -> None:
    source = f"Timetables {uuid4().hex}"
    file = tmp_path / "ferry.txt"
    file.write_text(SENTENCE, encoding="utf-8")

    made = signed_in("sources", "create", source, "--json")
    uploaded = signed_in("upload", str(file), "--source", source, "--json")
    again = signed_in("upload", str(file), "--source", source, "--json")
    listed = signed_in("docs", "ls", "--source", source, "--json")
    found = signed_in("search", "When does the ferry leave?", "--source", source)
    answered = signed_in("ask", "When does the ferry leave?", "--source", source)
    streamed = signed_in("ask", "When does the ferry leave?", "--source", source, "--json")

    assert json.loads(made.stdout)["name"] == source
    (outcome,) = json.loads(uploaded.stdout)
    assert (outcome["state"], outcome["duplicate"]) == ("ready", False)
    assert "ferry.txt: ready" in uploaded.stderr
    assert json.loads(again.stdout)[0]["duplicate"] is True
    assert [document["id"] for document in json.loads(listed.stdout)] == [outcome["document_id"]]
    assert SENTENCE in found.stdout
    assert f"[1] ferry.txt: {SENTENCE}" in answered.stdout
    events = [json.loads(line)["event"] for line in streamed.stdout.splitlines()]
    assert (events[0], events[-1]) == ("message.start", "message.end")

    job = signed_in("jobs", "watch", outcome["job_id"], "--json")
    removed = signed_in("docs", "rm", outcome["document_id"], "--yes", "--json")
    gone = signed_in("docs", "get", outcome["document_id"])

    assert json.loads(job.stdout.splitlines()[-1])["state"] == "ready"
    assert json.loads(removed.stdout)["points"] == 0
    assert gone.returncode == Exit.NOT_FOUND


def test_one_bad_file_among_good_ones_is_named_and_exits_with_one(signed_in: Sluice, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(SENTENCE, encoding="utf-8")
    (tmp_path / "empty.txt").touch()

    done = signed_in("upload", str(tmp_path), "--source", f"mixed {uuid4().hex}", "--create", "--json")

    assert done.returncode == Exit.FAILED
    assert {Path(each["path"]).name: each["state"] for each in json.loads(done.stdout)} == {
        "good.txt": "ready",
        "empty.txt": "refused",
    }
    assert "1 of 2 files failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("docs", "get", str(uuid4())), Exit.NOT_FOUND),
        (("docs", "ls", "--source", "no such source"), Exit.NOT_FOUND),
        (("jobs", "get", "not-an-id"), Exit.USAGE),
        (("uplaod", "x"), Exit.USAGE),
    ],
)
def test_what_goes_wrong_is_said_on_stderr_and_in_the_status(
    signed_in: Sluice, arguments: tuple[str, ...], status: Exit
) -> None:
    done = signed_in(*arguments)

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.strip()


def test_without_an_account_the_command_says_how_to_get_one(sluice: Sluice) -> None:
    done = sluice("sources", "ls")

    assert done.returncode == Exit.NOT_CONFIGURED
    assert "sluice login" in done.stderr


def test_a_server_that_does_not_answer_has_a_status_of_its_own(sluice: Sluice) -> None:
    assert sluice("sources", "ls", SLUICE_URL="http://127.0.0.1:9").returncode == Exit.UNREACHABLE


def test_a_forged_token_has_the_status_of_not_being_signed_in(sluice: Sluice, api_url: str) -> None:
    assert sluice("sources", "ls", SLUICE_URL=api_url, SLUICE_TOKEN="forged").returncode == Exit.NOT_SIGNED_IN
