"""`sluice sources`."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command("ls")
def list_sources(as_json: JsonOption = False) -> None:
    """List the sources."""
    with Client(account.load()) as client:
        found = list(client.pages("/api/sources"))
    if as_json:
        show_json(found)
    else:
        show_table(["id", "name", "documents"], [(each["id"], each["name"], each["documents"]) for each in found])


@app.command()
def create(name: str, as_json: JsonOption = False) -> None:
    """Make a source."""
    with Client(account.load()) as client:
        made = client.call("POST", "/api/sources", json={"name": name})
    if as_json:
        show_json(made)
    else:
        show_table(["id", "name"], [(made["id"], made["name"])])


@app.command()
def reindex(
    source: Annotated[str, typer.Argument(help="Name or id of the source.")],
    wait: Annotated[bool, typer.Option(help="Wait until all documents are handed out.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Read every document of a source again, with today's model and chunker."""
    with Client(account.load()) as client:
        source_id = client.source_named(source, create=False)
        job = client.call("POST", f"/api/admin/sources/{source_id}:reindex")
        if wait:
            for _ in client.watch_job(job["id"]):
                pass
            job = client.call("GET", f"/api/jobs/{job['id']}")
    if as_json:
        show_json(job)
    else:
        show_table(["job", "state", "documents"], [(job["id"], job["state"], (job["result"] or {}).get("documents"))])
    if wait and job["state"] != "ready":
        raise CommandError(f"The job {job['id']} is {job['state']}.", Exit.FAILED)
    say(f"The documents' own jobs: sluice jobs ls --parent {job['id']}")
