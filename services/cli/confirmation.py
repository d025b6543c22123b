"""Changing many things at once: the server says how many they are, and a person says that number."""

from __future__ import annotations

import sys
from typing import Any

from services.cli.client import Client, Refused
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table


def change_all(client: Client, path: str, body: dict[str, Any], *, question: str, yes: bool, as_json: bool) -> None:
    """Do it, once the number that the server told was confirmed; print how many were changed."""
    number = _matching(client, path, body)
    if number and not yes:
        # Not `typer.prompt`, which writes a space to stdout, where the data goes.
        say(f"{question.format(number=number)} Type {number} to go on:")
        if sys.stdin.readline().strip() != str(number):
            raise CommandError("Nothing was done.", Exit.FAILED)
    outcome = client.call("POST", path, json={**body, "confirm": number})
    if as_json:
        show_json(outcome)
    else:
        show_table(["matching", "changed", "skipped"], [tuple(outcome.values())])
    if outcome["skipped"]:
        say(f"{outcome['skipped']} were changed by somebody else meanwhile, or cannot be changed like this.")


def _matching(client: Client, path: str, body: dict[str, Any]) -> int:
    try:
        client.call("POST", path, json=body)
    except Refused as refused:
        if refused.problem.get("code") == "confirmation_needed":
            return int(refused.problem["matching"])
        raise
    raise CommandError("The server did it without asking for a confirmation.", Exit.SERVER_ERROR)
