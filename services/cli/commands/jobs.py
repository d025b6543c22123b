"""`sluice jobs`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import show_json, show_json_line, show_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
_COLUMNS = ["id", "state", "step", "progress", "elapsed", "error"]


@app.command("ls")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="queued, running, ready, failed or canceled.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with Client(account.load()) as client:
        found = list(client.pages("/api/jobs", **({"state": state} if state else {})))
    if as_json:
        show_json(found)
    else:
        show_table(_COLUMNS, [_row(each["id"], each) for each in found])


@app.command()
def get(job_id: str, as_json: JsonOption = False) -> None:
    """Show a job with its steps."""
    with Client(account.load()) as client:
        found = client.call("GET", f"/api/jobs/{job_id}")
    if as_json:
        show_json(found)
        return
    show_table(_COLUMNS, [_row(found["id"], found)])
    steps = [
        (step["step"], step["part"], step["state"], f"{step['attempt']} of {step['max_attempts']}", step["error_code"])
        for step in found["steps"]
    ]
    show_table(["step", "part", "state", "attempt", "error"], steps)


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
def cancel(job_id: str, as_json: JsonOption = False) -> None:
    """Stop a job that waits or runs."""
    _act(job_id, "cancel", as_json=as_json)


@app.command()
def retry(job_id: str, as_json: JsonOption = False) -> None:
    """Try a failed or canceled job again."""
    _act(job_id, "retry", as_json=as_json)


def _act(job_id: str, action: str, *, as_json: bool) -> None:
    with Client(account.load()) as client:
        job = client.call("POST", f"/api/admin/jobs/{job_id}:{action}")
    if as_json:
        show_json(job)
    else:
        show_table(_COLUMNS, [_row(job_id, job)])


def _row(job_id: str, job: dict[str, Any]) -> tuple[object, ...]:
    progress = f"{job['done']} of {job['total']}" if job["total"] else None
    error = f"{job['error']['code']}: {job['error']['detail']}" if job["error"] else None
    return job_id, job["state"], job["step"], progress, f"{job['elapsed_seconds']} s", error
