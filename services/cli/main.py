"""`sluice`: the command line. Data on stdout, the rest on stderr; exit codes in `exit_codes.py`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import sluice
from services.cli import account, answers
from services.cli.client import Client
from services.cli.commands import audit, dead_letters, docs, doctor, jobs, models, secrets, smoke, sources
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table
from services.cli.uploads import files_in, upload_all

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=True, pretty_exceptions_enable=False)
app.add_typer(sources.app, name="sources", help="Collections of documents.")
app.add_typer(docs.app, name="docs", help="Documents.")
app.add_typer(jobs.app, name="jobs", help="Work on documents.")
app.add_typer(dead_letters.app, name="dead-letters", help="Work that was given up.")
app.add_typer(audit.app, name="audit", help="Who did what.")
app.add_typer(models.app, name="models", help="Models on disk, and the aliases by which they are asked for.")
app.add_typer(secrets.app, name="secrets", help="Passwords and keys of a deployment.")
app.command()(smoke.smoke)
app.command()(doctor.doctor)

JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
SourcesOption = Annotated[
    list[str], typer.Option("--source", "-s", help="Only in this source (name or id); repeatable.")
]


@app.command()
def up(foreground: Annotated[bool, typer.Option(help="Stay, and stop everything on Ctrl-C.")] = False) -> None:
    """Start the platform of this checkout, without Docker."""
    _embedded("up", *(["--foreground"] if foreground else []))


@app.command()
def down() -> None:
    """Stop the platform of this checkout; its data is kept."""
    _embedded("down")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show every part of the platform of this checkout."""
    _embedded("status", *(["--json"] if as_json else []))


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"{sluice.__version__}\n")


@app.command()
def login(
    url: Annotated[str | None, typer.Option(help="Of the API; default: the platform of this folder.")] = None,
    email: Annotated[str | None, typer.Option(help="Your e-mail address.")] = None,
    password_stdin: Annotated[bool, typer.Option(help="Read the password from standard input.")] = False,
) -> None:
    """Sign in and remember it until the token expires."""
    here = account.embedded() if url is None and email is None else None
    if here is not None:
        url, email, password = here.url, here.email, here.password
    else:
        url = url or os.environ.get("SLUICE_URL") or typer.prompt("URL of the API", err=True)
        email = email or typer.prompt("E-mail address", err=True)
        password = (
            sys.stdin.readline().rstrip("\n") if password_stdin else typer.prompt("Password", hide_input=True, err=True)
        )
    with Client(account.Account(url, "")) as client:
        granted = client.sign_in(email, password)
    account.save(account.Account(url, granted["access_token"]))
    say(f"Signed in to {url} as {email} ({granted['role']}) for {granted['expires_in'] // 60} minutes.")


@app.command()
def upload(
    paths: Annotated[list[Path], typer.Argument(exists=True, readable=True, help="Files or folders.")],
    source: Annotated[str, typer.Option("--source", "-s", help="Name or id of the source.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Go into folders.")] = False,
    create: Annotated[bool, typer.Option("--create", help="Make the source if there is none of this name.")] = False,
    tag: Annotated[list[str], typer.Option(help="A tag for every file; repeatable.")] = [],
    wait: Annotated[bool, typer.Option(help="Wait until the files are ready.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Upload files and watch them become ready. Exit status 1 if any of them failed."""
    files = files_in(paths, recursive=recursive)
    if not files:
        raise CommandError("There is no file to upload (folders are entered only one level without -r).", Exit.USAGE)
    with Client(account.load()) as client:
        outcomes = upload_all(client, files, client.source_named(source, create=create), tag, wait=wait)
    if as_json:
        show_json([outcome.as_dict() for outcome in outcomes])
    else:
        show_table(["document", "state", "file"], [(each.document_id, each.state, each.path) for each in outcomes])
    failed = sum(outcome.failed for outcome in outcomes)
    if failed:
        raise CommandError(f"{failed} of {len(outcomes)} files failed.", Exit.FAILED)


@app.command()
def search(
    question: str,
    source: SourcesOption = [],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=50)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Find passages."""
    with Client(account.load()) as client:
        wanted = [client.source_named(name, create=False) for name in source]
        found = client.call("POST", "/api/search", json={"question": question, "source_ids": wanted, "limit": limit})
    if as_json:
        show_json(found)
        return
    if not found["passages"]:
        say("Nothing bears on this question.")
    for passage in found["passages"]:
        page = f", page {passage['page']}" if passage["page"] else ""
        sys.stdout.write(f"{passage['number']}. {passage['document_name']}{page}  ({passage['score']:.2f})\n")
        sys.stdout.write(f"   {' '.join(passage['text'].split())[:300]}\n")


@app.command()
def ask(
    question: str,
    source: SourcesOption = [],
    as_json: Annotated[bool, typer.Option("--json", help="The events, a line of JSON each.")] = False,
) -> None:
    """Ask, and watch the answer being written, with its citations. Exit status 1 if nothing bears on the question."""
    with Client(account.load()) as client:
        wanted = [client.source_named(name, create=False) for name in source]
        events = answers.ask(client, question, wanted)
        answer = answers.print_events(events) if as_json else answers.print_answer(events)
    if answer.finish_reason == "no_context":
        raise CommandError("No answer.", Exit.FAILED)


def main() -> NoReturn:
    """Run the command that was asked for; every foreseen failure is a sentence and an exit status."""
    try:
        app()
    except CommandError as error:
        say(f"error: {error}")
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(Exit.OK)


def _embedded(*arguments: str) -> NoReturn:
    if find_spec("infra.embedded") is None:
        raise CommandError(
            "This works in a checkout of Sluice only; elsewhere the platform runs on Docker.", Exit.USAGE
        )
    # Replaces this process, so that Ctrl-C reaches the supervisor directly.
    os.execv(sys.executable, [sys.executable, "-m", "infra.embedded", *arguments])  # noqa: S606 - our own module


if __name__ == "__main__":
    main()
