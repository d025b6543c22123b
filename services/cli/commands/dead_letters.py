"""`sluice dead-letters`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.confirmation import change_all
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_COLUMNS = ["id", "when", "reason", "step", "attempts", "resolution", "message"]
_PATH = "/api/admin/dead-letters"

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
LetterArgument = Annotated[str | None, typer.Argument(help="Id of one dead letter.")]
SignatureOption = Annotated[str | None, typer.Option(help="All open ones of this group (sluice dead-letters groups).")]
NobodysOption = Annotated[bool, typer.Option("--unattributed", help="Those of no tenant (role admin).")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many they are.")]


@app.command("ls")
def list_letters(
    resolved: Annotated[
        bool | None, typer.Option("--resolved/--open", help="Only those dealt with, or only the others.")
    ] = None,
    signature: Annotated[str | None, typer.Option(help="Only of this group.")] = None,
    job: Annotated[str | None, typer.Option(help="Only of this job (id).")] = None,
    unattributed: NobodysOption = False,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, newest first."""
    given = {"resolved": resolved, "signature": signature, "job_id": job, "unattributed": unattributed or None}
    with Client(account.load()) as client:
        found = list(client.pages(_PATH, **{name: value for name, value in given.items() if value is not None}))
    if as_json:
        show_json(found)
    else:
        show_table(_COLUMNS, [_row(each) for each in found])


@app.command()
def groups(unattributed: NobodysOption = False, as_json: JsonOption = False) -> None:
    """Count the open dead letters by kind of failure."""
    with Client(account.load()) as client:
        found = client.call("GET", f"{_PATH}/groups", params=_nobodys(unattributed))
    if as_json:
        show_json(found["data"])
        return
    rows = [
        (each["signature"], each["open"], each["reason"], each["step"], each["last_at"], each["error_message"])
        for each in found["data"]
    ]
    show_table(["signature", "open", "reason", "step", "last", "message of one"], rows)
    if found["has_more"]:
        say("There are more kinds than these.")


@app.command()
def get(letter_id: str, unattributed: NobodysOption = False, as_json: JsonOption = False) -> None:
    """Show all of a dead letter."""
    with Client(account.load()) as client:
        found = client.call("GET", f"{_PATH}/{letter_id}", params=_nobodys(unattributed))
    if as_json:
        show_json(found)
    else:
        show_table(["what", "value"], list(found.items()))


@app.command()
def replay(
    letter_id: LetterArgument = None,
    signature: SignatureOption = None,
    ocr: Annotated[bool | None, typer.Option("--ocr/--no-ocr", help="Read scans with OCR, or not.")] = None,
    skip_page: Annotated[list[int], typer.Option(help="Leave this page out, from 1; repeatable.")] = [],
    parser: Annotated[str | None, typer.Option(help="Read with this parser: pypdf (PDF) or plain (text).")] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Do the work again: from its last checkpoint, or reading the document anew with other options."""
    given = {"ocr": ocr, "skip_pages": skip_page or None, "parser": parser}
    options = {name: value for name, value in given.items() if value is not None}
    _deal_with("replay", letter_id, signature, {"options": options} if options else {}, yes=yes, as_json=as_json)


@app.command()
def discard(
    letter_id: LetterArgument = None,
    signature: SignatureOption = None,
    unattributed: NobodysOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say that nothing will be done about it."""
    _deal_with("discard", letter_id, signature, {}, params=_nobodys(unattributed), yes=yes, as_json=as_json)


def _deal_with(
    action: str,
    letter_id: str | None,
    signature: str | None,
    body: dict[str, Any],
    *,
    params: dict[str, Any] | None = None,
    yes: bool,
    as_json: bool,
) -> None:
    if (letter_id is None) == (signature is None):
        raise CommandError(
            f"Name one dead letter (sluice dead-letters {action} ID), or all of a kind "
            f"(sluice dead-letters {action} --signature SIGNATURE).",
            Exit.USAGE,
        )
    with Client(account.load()) as client:
        if signature is not None:
            wanted = {"filter": {"signature": signature}, **body}
            question = "{number} dead letters: " + action + " all?"
            change_all(client, f"{_PATH}:{action}", wanted, question=question, yes=yes, as_json=as_json)
            return
        letter = client.call("POST", f"{_PATH}/{letter_id}:{action}", json=body, params=params or {})
    if as_json:
        show_json(letter)
        return
    show_table(_COLUMNS, [_row(letter)])
    if letter["replay_job_id"]:
        say(f"Watch it: sluice jobs watch {letter['replay_job_id']}")


def _nobodys(unattributed: bool) -> dict[str, Any]:
    return {"unattributed": True} if unattributed else {}


def _row(letter: dict[str, Any]) -> tuple[object, ...]:
    named = ("id", "created_at", "reason", "step", "attempts", "resolution", "error_message")
    return tuple(letter[name] for name in named)
