"""`sluice secrets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.deployment_secrets import NAMES, missing
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table
from services.cli.secret_files import EVERYBODY, OWNER_ONLY, SecretFolder
from services.cli.secret_rotation import rotation_of

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
DirectoryArgument = Annotated[Path, typer.Argument(file_okay=False, help="A folder with one secret in each file.")]


@app.command()
def new(
    directory: DirectoryArgument,
    only: Annotated[list[str], typer.Option(help="Only this file; repeatable.")] = [],
    force: Annotated[bool, typer.Option("--force", help="Replace what --only names; NAME.previous is kept.")] = False,
    readable: Annotated[bool, typer.Option("--readable", help="Mode 0444: several users share the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Make the passwords and keys of a deployment that do not exist yet. Prints names, never values."""
    if unknown := [name for name in only if name not in NAMES]:
        raise CommandError(f"There is no secret {unknown[0]!r}. There are: {', '.join(NAMES)}.", Exit.USAGE)
    if force and not only:
        raise CommandError("--force replaces what --only names: name the files.", Exit.USAGE)
    wanted = only or NAMES
    with SecretFolder.locked(directory, make=True, readable=readable) as folder:
        existing = folder.read(NAMES)
        kept = {name: text for name, text in existing.items() if not (force and name in wanted)}
        made = missing(kept, wanted)
        for name, text in made.items():
            if name in existing:
                folder.replace(name, text)
            else:
                folder.write(name, text, EVERYBODY if readable else OWNER_ONLY)
    if as_json:
        show_json({"made": list(made), "kept": [name for name in wanted if name not in made]})
    else:
        show_table(["made"], [(name,) for name in made])
    say(f"{len(made)} files made in {directory}." if made else f"Nothing to do: {directory} has them all.")


@app.command()
def rotate(
    directory: DirectoryArgument, name: Annotated[str, typer.Argument(help="The file to write a new secret to.")]
) -> None:
    """Replace a secret of a deployment that runs, and say what to do next. The old one is kept as NAME.previous."""
    rotation = rotation_of(name)
    with SecretFolder.locked(directory) as folder:
        existing = folder.read([name])
        if name not in existing:
            raise CommandError(
                f"{directory} has no {name}. Make it: sluice secrets new {directory} --only {name}", Exit.NOT_FOUND
            )
        folder.replace(name, rotation.renew(existing[name]))
    show_table(["rotated"], [(name,)])
    say(rotation.afterwards)
