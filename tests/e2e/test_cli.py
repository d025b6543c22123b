"""The `sluice` command as a person or a script uses it: what it prints, where, and the status that it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import pytest

from services.cli.exit_codes import Exit
from sluice.identity.roles import Role
from tests.e2e.running import HOME, PASSWORD, Join, Member, Stores

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


@pytest.fixture
def in_charge(sluice: Sluice, api_url: str, join: Join) -> Sluice:
    """The command, after the only administrator of a new tenant has signed in."""
    email = join(f"Office {uuid4().hex}", Role.ADMIN).email
    done = sluice("login", "--url", api_url, "--email", email, "--password-stdin", stdin=f"{PASSWORD}\n")

    assert done.returncode == Exit.OK, done.stderr
    return sluice


@pytest.fixture
def blank(in_charge: Sluice, tmp_path: Path) -> dict[str, str]:
    """A document without a word, which has failed."""
    file = tmp_path / "blank.html"
    file.write_text("<!doctype html><html><body><script>only a script</script></body></html>", encoding="utf-8")
    done = in_charge("upload", str(file), "--source", "Blanks", "--create", "--json")

    assert done.returncode == Exit.FAILED, done.stderr
    (outcome,) = json.loads(done.stdout)
    return outcome  # type: ignore[no-any-return] # JSON


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


def test_the_doctor_says_what_differs_and_mends_it(sluice: Sluice, api_url: str, join: Join, stores: Stores) -> None:
    member = join(f"Cli {uuid4().hex}", Role.ADMIN)
    assert (
        sluice("login", "--url", api_url, "--email", member.email, "--password-stdin", stdin=PASSWORD).returncode == 0
    )
    document = member.api.ingested(member.api.new_source(), "ferry.txt", f"{SENTENCE} {uuid4().hex}".encode())
    well = sluice("doctor")
    stores.index.delete_document(member.tenant_id, UUID(document["id"]))

    ill, mended, again = sluice("doctor"), sluice("doctor", "--repair", "--json"), sluice("doctor")

    assert (well.returncode, ill.returncode, mended.returncode, again.returncode) == (
        Exit.OK,
        Exit.FAILED,
        Exit.OK,
        Exit.OK,
    )
    assert "qdrant\tmissing\t1\t1\t" in ill.stdout
    assert "sluice doctor --repair" in ill.stderr
    result = json.loads(mended.stdout)
    assert (result["found"]["qdrant"]["missing"], result["qdrant"]["missing"]) == (1, 0)


def test_a_source_is_reindexed_by_its_name(sluice: Sluice, api_url: str, join: Join) -> None:
    member = join(f"Cli {uuid4().hex}", Role.ADMIN)
    assert (
        sluice("login", "--url", api_url, "--email", member.email, "--password-stdin", stdin=PASSWORD).returncode == 0
    )
    member.api.ingested(member.api.new_source(), "ferry.txt", f"{SENTENCE} {uuid4().hex}".encode())
    (source,) = member.api.get("/api/sources")["data"]

    done = sluice("sources", "reindex", source["name"], "--json")
    unknown = sluice("sources", "reindex", "no such source")

    assert done.returncode == Exit.OK, done.stderr
    assert (json.loads(done.stdout)["state"], json.loads(done.stdout)["result"]) == ("ready", {"documents": 1})
    assert unknown.returncode == Exit.NOT_FOUND


def test_a_failed_job_is_found_looked_at_tried_again_and_watched(in_charge: Sluice, blank: dict[str, str]) -> None:
    job_id = blank["job_id"]

    listed = in_charge("jobs", "ls", "--state", "failed", "--source", "Blanks", "--error", "no_text", "--json")
    narrowed = in_charge("jobs", "ls", "--before", "2001-01-01T00:00:00Z", "--json")
    history = in_charge("jobs", "get", job_id, "--history")
    tried = in_charge("jobs", "retry", job_id, "--json")
    watched = in_charge("jobs", "watch", job_id)
    refused = in_charge("jobs", "cancel", job_id)

    assert [job["id"] for job in json.loads(listed.stdout)] == [job_id]
    assert json.loads(narrowed.stdout) == []
    assert "\tfailed\t" in history.stdout
    assert "no_text" in history.stdout
    assert json.loads(tried.stdout)["state"] == "queued"
    assert watched.returncode == Exit.FAILED
    assert "The job is failed." in watched.stderr
    assert (refused.returncode, refused.stdout) == (Exit.CONFLICT, "")
    assert "allowed now: retry" in refused.stderr


def test_many_jobs_are_changed_when_their_number_was_typed(in_charge: Sluice, blank: dict[str, str]) -> None:
    all_failed = ("jobs", "retry", "--all-matching", "--error", "no_text")

    mistyped = in_charge(*all_failed, stdin="7\n")
    silent = in_charge(*all_failed)
    untouched = in_charge("jobs", "get", blank["job_id"], "--json")
    typed = in_charge(*all_failed, "--json", stdin="1\n")
    in_charge("jobs", "watch", blank["job_id"])
    unasked = in_charge(*all_failed, "--yes")

    assert (mistyped.returncode, mistyped.stdout) == (Exit.FAILED, "")
    assert "1 jobs will be told to retry. Type 1 to go on" in mistyped.stderr
    assert "Nothing was done." in mistyped.stderr
    assert (silent.returncode, silent.stdout) == (Exit.FAILED, "")
    assert json.loads(untouched.stdout)["state"] == "failed"
    assert json.loads(typed.stdout) == {"matching": 1, "changed": 1, "skipped": 0}
    assert (unasked.returncode, unasked.stdout) == (Exit.OK, "1\t1\t0\n")


def test_a_dead_letter_is_found_by_its_kind_and_replayed_with_another_parser(
    in_charge: Sluice, blank: dict[str, str]
) -> None:
    listed = in_charge("dead-letters", "ls", "--open", "--json")
    grouped = in_charge("dead-letters", "groups", "--json")
    (letter,) = json.loads(listed.stdout)
    shown = in_charge("dead-letters", "get", letter["id"])
    hopeless = in_charge("dead-letters", "replay", letter["id"], "--parser", "pypdf")
    replayed = in_charge("dead-letters", "replay", letter["id"], "--parser", "plain", "--json")
    job_id = json.loads(replayed.stdout)["replay_job_id"]
    again = in_charge("dead-letters", "replay", letter["id"])
    watched = in_charge("jobs", "watch", job_id)
    discarded = in_charge("dead-letters", "discard", letter["id"])
    nothing_left = in_charge("dead-letters", "discard", "--signature", letter["signature"], "--yes")

    assert (letter["job_id"], letter["reason"]) == (blank["job_id"], "no_text")
    assert [(group["signature"], group["open"]) for group in json.loads(grouped.stdout)] == [(letter["signature"], 1)]
    assert letter["error_message"] in shown.stdout
    assert (hopeless.returncode, hopeless.stdout) == (Exit.USAGE, "")
    assert watched.returncode == Exit.OK
    assert f"sluice jobs watch {job_id}" in again.stderr
    assert discarded.returncode == Exit.CONFLICT
    assert nothing_left.stdout == "0\t0\t0\n"


def test_the_audit_log_says_who_did_it_and_is_intact(in_charge: Sluice, blank: dict[str, str]) -> None:
    in_charge("docs", "rm", blank["document_id"], "--yes")

    listed = in_charge("audit", "ls", "--target", blank["document_id"], "--json")
    verified = in_charge("audit", "verify", "--json")
    said = in_charge("audit", "verify")

    (entry,) = json.loads(listed.stdout)
    assert (entry["action"], entry["actor"].startswith("admin-")) == ("document.delete", True)
    assert json.loads(verified.stdout)["intact"] is True
    assert (said.returncode, said.stdout) == (Exit.OK, f"1\t{entry['digest']}\n")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("jobs", "cancel"), Exit.USAGE),
        (("jobs", "retry", str(uuid4()), "--state", "failed"), Exit.USAGE),
        (("jobs", "cancel", str(uuid4()), "--all-matching"), Exit.USAGE),
        (("jobs", "cancel", "--all-matching", "--yes"), Exit.USAGE),
        (("jobs", "ls", "--state", "unheard"), Exit.USAGE),
        (("jobs", "ls", "--after", "yesterday"), Exit.USAGE),
        (("jobs", "retry", str(uuid4())), Exit.NOT_FOUND),
        (("dead-letters", "replay"), Exit.USAGE),
        (("dead-letters", "replay", str(uuid4()), "--signature", "0" * 16), Exit.USAGE),
        (("dead-letters", "get", str(uuid4())), Exit.NOT_FOUND),
        (("dead-letters", "discard", "not-an-id"), Exit.USAGE),
        (("audit", "ls", "--target", "not-an-id"), Exit.USAGE),
    ],
)
def test_an_administrator_who_errs_is_told_on_stderr_and_by_the_status(
    in_charge: Sluice, arguments: tuple[str, ...], status: Exit
) -> None:
    done = in_charge(*arguments)

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.strip()


@pytest.mark.parametrize("arguments", [("audit", "verify"), ("dead-letters", "ls"), ("jobs", "retry", str(uuid4()))])
def test_what_administrators_do_is_refused_to_others_by_name_of_the_role(
    signed_in: Sluice, arguments: tuple[str, ...]
) -> None:
    done = signed_in(*arguments)

    assert (done.returncode, done.stdout) == (Exit.NOT_SIGNED_IN, "")
    assert "tenant_admin" in done.stderr
