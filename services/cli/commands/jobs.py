"""`sluice jobs`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.confirmation import change_all
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import show_json, show_json_line, show_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_COLUMNS = ["id", "state", "step", "progress", "elapsed", "left", "place", "error"]

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
JobArgument = Annotated[str | None, typer.Argument(help="Id of one job.")]
StateOption = Annotated[str | None, typer.Option(help="queued, running, ready, failed or canceled.")]
KindOption = Annotated[str | None, typer.Option(help="ingest, reindex, doctor and so on.")]
SourceOption = Annotated[str | None, typer.Option("--source", "-s", help="On documents of this source (name or id).")]
DocumentOption = Annotated[str | None, typer.Option("--document", help="On this document (id).")]
ParentOption = Annotated[str | None, typer.Option("--parent", help="Made by this job (id).")]
ErrorOption = Annotated[str | None, typer.Option("--error", help="With this error code.")]
AfterOption = Annotated[str | None, typer.Option("--after", help="Made at this time or later (2026-01-31T00:00:00Z).")]
BeforeOption = Annotated[str | None, typer.Option("--before", help="Made before this time.")]
AllOption = Annotated[bool, typer.Option("--all-matching", help="All jobs that the options fit.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many they are.")]


@app.command("ls")
def list_jobs(
    state: StateOption = None,
    kind: KindOption = None,
    source: SourceOption = None,
    document: DocumentOption = None,
    parent: ParentOption = None,
    error: ErrorOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with Client(account.load()) as client:
        wanted = _filter(client, state, kind, source, document, parent, error, after, before)
        found = list(client.pages("/api/jobs", **wanted))
    if as_json:
        show_json(found)
    else:
        show_table(_COLUMNS, [_row(each["id"], each) for each in found])


@app.command()
def get(
    job_id: str,
    history: Annotated[
        bool, typer.Option("--history", help="With its attempts and dead letters (administrators).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a job with its steps."""
    with Client(account.load()) as client:
        found = client.call("GET", f"/api/admin/jobs/{job_id}" if history else f"/api/jobs/{job_id}")
    if as_json:
        show_json(found)
        return
    show_table(_COLUMNS, [_row(found["id"], found)])
    steps = [
        (step["step"], step["part"], step["state"], f"{step['attempt']} of {step['max_attempts']}", step["error_code"])
        for step in found["steps"]
    ]
    show_table(["step", "part", "state", "attempt", "error"], steps)
    if history:
        _show_history(found)


@app.command()
def watch(job_id: str, as_json: JsonOption = False) -> None:
    """Watch a job until it ends. Exit status 1 unless it becomes ready."""
    last: dict[str, Any] = {}
    with Client(account.load()) as client:
        for _, last in client.watch_job(job_id):
            if as_json:
                show_json_line(last)
            else:
                show_table(_COLUMNS, [_row(job_id, last)])
    if last.get("state") != "ready":
        raise CommandError(f"The job is {last.get('state', 'unknown')}.", Exit.FAILED)


@app.command()
def cancel(
    job_id: JobArgument = None,
    all_matching: AllOption = False,
    state: StateOption = None,
    kind: KindOption = None,
    source: SourceOption = None,
    document: DocumentOption = None,
    parent: ParentOption = None,
    error: ErrorOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop a job that waits or runs, or all that match."""
    with Client(account.load()) as client:
        wanted = _filter(client, state, kind, source, document, parent, error, after, before)
        _act(client, "cancel", job_id, wanted, all_matching=all_matching, yes=yes, as_json=as_json)


@app.command()
def retry(
    job_id: JobArgument = None,
    all_matching: AllOption = False,
    state: StateOption = None,
    kind: KindOption = None,
    source: SourceOption = None,
    document: DocumentOption = None,
    parent: ParentOption = None,
    error: ErrorOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try a failed or canceled job again, or all that match."""
    with Client(account.load()) as client:
        wanted = _filter(client, state, kind, source, document, parent, error, after, before)
        _act(client, "retry", job_id, wanted, all_matching=all_matching, yes=yes, as_json=as_json)


def _filter(
    client: Client,
    state: str | None,
    kind: str | None,
    source: str | None,
    document: str | None,
    parent: str | None,
    error: str | None,
    after: str | None,
    before: str | None,
) -> dict[str, str]:
    given = {
        "state": state,
        "kind": kind,
        "source_id": client.source_named(source, create=False) if source else None,
        "document_id": document,
        "parent_id": parent,
        "error_code": error,
        "created_after": after,
        "created_before": before,
    }
    return {name: value for name, value in given.items() if value is not None}


def _act(
    client: Client,
    action: str,
    job_id: str | None,
    wanted: dict[str, str],
    *,
    all_matching: bool,
    yes: bool,
    as_json: bool,
) -> None:
    if (job_id is None) != all_matching or (job_id and wanted):
        raise CommandError(
            f"Name one job (sluice jobs {action} ID), or many by what they have in common "
            f"(sluice jobs {action} --all-matching --error CODE).",
            Exit.USAGE,
        )
    if all_matching:
        question = "{number} jobs will be told to " + action + "."
        path = f"/api/admin/jobs:{action}"
        change_all(client, path, {"filter": wanted}, question=question, yes=yes, as_json=as_json)
        return
    job = client.call("POST", f"/api/admin/jobs/{job_id}:{action}")
    if as_json:
        show_json(job)
    else:
        show_table(_COLUMNS, [_row(job["id"], job)])


def _row(job_id: str, job: dict[str, Any]) -> tuple[object, ...]:
    progress = f"{job['done']} of {job['total']}" if job["total"] else None
    error = f"{job['error']['code']}: {job['error']['detail']}" if job["error"] else None
    left = None if job["eta_seconds"] is None else f"{job['eta_seconds']} s"
    return job_id, job["state"], job["step"], progress, f"{job['elapsed_seconds']} s", left, job["place"], error


def _show_history(job: dict[str, Any]) -> None:
    tried = [
        (
            each["step"],
            each["part"],
            each["attempt"],
            each["worker"],
            each["started_at"],
            each["ended_at"],
            each["outcome"],
            (each["error"] or {}).get("detail"),
        )
        for each in job["attempts"]
    ]
    show_table(["step", "part", "attempt", "worker", "started", "ended", "outcome", "error"], tried)
    letters = [(each["id"], each["reason"], each["resolution"], each["error_message"]) for each in job["dead_letters"]]
    if letters:
        show_table(["dead letter", "reason", "resolution", "message"], letters)
