"""`sluice audit`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_PATH = "/api/admin/audit"

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command("ls")
def list_entries(
    target: Annotated[
        str | None, typer.Option(help="Only what was done to this job, letter, document ... (id).")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List what administrators did, newest first."""
    with Client(account.load()) as client:
        found = list(islice(client.pages(_PATH, **({"target_id": target} if target else {})), limit))
    if as_json:
        show_json(found)
        return
    rows = [
        (
            each["number"],
            each["at"],
            each["actor"] or each["actor_id"],
            each["action"],
            each["target_id"],
            each["detail"],
        )
        for each in found
    ]
    show_table(["number", "when", "who", "what", "to", "detail"], rows)


@app.command()
def verify(as_json: JsonOption = False) -> None:
    """Check that no entry was changed or removed. Exit status 1 if one was."""
    with Client(account.load()) as client:
        verdict = client.call("GET", f"{_PATH}:verify")
    if as_json:
        show_json(verdict)
    else:
        show_table(["entries", "head"], [(verdict["entries"], verdict["head"])])
    if not verdict["intact"]:
        raise CommandError(f"The log is broken at entry {verdict['broken_at']}: {verdict['why']}.", Exit.FAILED)
    say("Intact. Keep `head` elsewhere: it shows later whether the end of the log was cut off.")
