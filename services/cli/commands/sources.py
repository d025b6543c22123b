"""`sluice sources`."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.output import show_json, show_table

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
