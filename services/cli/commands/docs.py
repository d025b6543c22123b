"""`sluice docs`."""

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
def list_documents(
    source: Annotated[str | None, typer.Option("--source", "-s", help="Only of this source (name or id).")] = None,
    as_json: JsonOption = False,
) -> None:
    """List documents, newest first."""
    with Client(account.load()) as client:
        narrowed = {"source_id": client.source_named(source, create=False)} if source else {}
        found = list(client.pages("/api/documents", **narrowed))
    if as_json:
        show_json(found)
        return
    rows = [
        (each["id"], each["state"], each["version"]["chunks"], each["name"], (each["error"] or {}).get("code"))
        for each in found
    ]
    show_table(["id", "state", "chunks", "name", "error"], rows)


@app.command()
def get(document_id: str, as_json: JsonOption = False) -> None:
    """Show a document."""
    with Client(account.load()) as client:
        found = client.call("GET", f"/api/documents/{document_id}")
    if as_json:
        show_json(found)
        return
    version = found.pop("version")
    rows = [*found.items(), *((f"version.{name}", value) for name, value in version.items())]
    show_table(["what", "value"], rows)


@app.command()
def original(document_id: str) -> None:
    """Print a URL of the original that works for five minutes."""
    with Client(account.load()) as client:
        show_table(["url"], [(client.call("GET", f"/api/documents/{document_id}/original")["url"],)])


@app.command()
def rm(
    document_id: str,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a document from every store."""
    if not yes and not typer.confirm(f"Erase {document_id} for good?", err=True):
        raise CommandError("Nothing was erased.", Exit.FAILED)
    with Client(account.load()) as client:
        receipt = client.call("DELETE", f"/api/documents/{document_id}")
    if as_json:
        show_json(receipt)
    else:
        left = f"{receipt['rows']} rows, {receipt['points']} points, {receipt['objects']} objects"
        say(f"Erased. Left of it: {left}.")
