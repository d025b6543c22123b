"""`sluice smoke`."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from services.cli import account
from services.cli.account import Account
from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json
from services.cli.smoke import suite
from services.cli.smoke.interruption import let_sigterm_unwind
from services.cli.smoke.report import for_programs, line_of
from services.cli.smoke.suite import Report, Result
from services.cli.smoke.visit import Visit

_ADMINISTRATOR: Final = "admin@sluice.local"


def smoke(
    url: Annotated[str | None, typer.Argument(help="Of the platform; default: the platform of this folder.")] = None,
    email: Annotated[str | None, typer.Option(help=f"Who signs in; default: {_ADMINISTRATOR}.")] = None,
    password_file: Annotated[Path | None, typer.Option(dir_okay=False, help="File with the password.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Password from standard input.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with all checks.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that each check may take.")] = 120,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a platform that is coming up.")] = 0,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept any certificate.")] = False,
    ca: Annotated[Path | None, typer.Option(dir_okay=False, help="Certificates to trust (PEM).")] = None,
) -> None:
    """Check that a platform does its work, from signing in to a cited answer. Exit status 1 if it does not.

    Uploads two small texts to a source of its own and erases them at the end. Cancel and retry need the role
    tenant_admin.
    """
    where, who, password = _account(url, email, password_file, from_stdin=password_stdin)
    let_sigterm_unwind()
    report = Report()
    with Client(Account(where, ""), silence=timeout, trust=_trust(insecure, ca)) as client:
        visit = Visit(client, who, password, wait=wait, patience=timeout)
        try:
            suite.run(visit, report, lambda result: _tell(result, on_stdout=not as_json))
        finally:
            for left in report.left:
                say(f"Left on the platform: {left.what} ({left.id}): {left.why}.")
    if as_json:
        show_json(for_programs(where, report))
    if report.failed:
        names = ", ".join(result.name for result in report.failed)
        raise CommandError(f"{len(report.failed)} of {len(report.results)} checks failed: {names}.", report.status)
    say(f"All {len(report.results)} checks passed: {where}")


def _account(url: str | None, email: str | None, file: Path | None, *, from_stdin: bool) -> tuple[str, str, str]:
    if file is not None and from_stdin:
        raise CommandError("The password comes from --password-file or from --password-stdin, not both.", Exit.USAGE)
    if url is not None and not url.startswith(("http://", "https://")):
        raise CommandError(f"{url!r} is no URL: write https://… or http://…", Exit.USAGE)
    here = account.embedded() if url is None else None
    if url is None and here is None:
        raise CommandError(
            "There is no platform in this folder. Name one: sluice smoke https://… --password-file FILE",
            Exit.NOT_CONFIGURED,
        )
    if file is not None:
        password = _first_line(file)
    elif from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    elif here is not None:
        password = here.password
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, err=True)
    else:
        raise CommandError("Say where the password is: --password-file FILE, or --password-stdin.", Exit.USAGE)
    return str(url or (here and here.url)), email or (here.email if here else _ADMINISTRATOR), password


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").split("\n", 1)[0]
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}.", Exit.USAGE) from error


def _trust(insecure: bool, ca: Path | None) -> ssl.SSLContext | bool:
    if insecure and ca is not None:
        raise CommandError("Either --insecure or --ca, not both.", Exit.USAGE)
    if ca is None:
        return not insecure
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise CommandError(f"{ca} holds no certificates (PEM): {error.strerror or error}.", Exit.USAGE) from error


def _tell(result: Result, *, on_stdout: bool) -> None:
    if on_stdout:
        sys.stdout.write(line_of(result) + "\n")
        sys.stdout.flush()
    else:
        say(line_of(result))
