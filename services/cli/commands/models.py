"""`sluice models`: works on the models folder, without the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table, size
from sluice.errors import Conflict, NotFound, SluiceError
from sluice.model_store.manifest import Manifest, ModelEntry, ModelType, Version
from sluice.model_store.store import Description, ModelStore
from sluice.settings import ModelStoreSettings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

FolderOption = Annotated[
    Path | None, typer.Option("--folder", file_okay=False, help="The models folder; default: SLUICE_MODELS_FOLDER.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
ModelArgument = Annotated[str, typer.Argument(help="NAME, or NAME@VERSION where there are several.")]
TypeOption = Annotated[str, typer.Option("--type", help="embed or llm.")]


@app.command("ls")
def list_models(folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """List the models, and which alias means which."""
    with _store(folder) as store:
        manifest = store.manifest()
    if as_json:
        show_json([_as_json(manifest, entry) for entry in manifest.models])
        return
    show_table(
        ["model", "type", "backend", "size", "aliases"],
        [
            (entry.key, entry.type, entry.backend, size(entry.size), ", ".join(_aliases(manifest, entry)) or None)
            for entry in manifest.models
        ],
    )


@app.command()
def add(
    path: Annotated[Path, typer.Argument(exists=True, help="A file (GGUF) or the folder of a model.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
    kind: TypeOption,
    backend: Annotated[str, typer.Option(help="What runs it.")],
    version: Annotated[str | None, typer.Option(help="Default: the first digits of its SHA-256.")] = None,
    dimension: Annotated[int | None, typer.Option(help="Numbers in a vector (embed).")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that it reads at most.")] = None,
    language: Annotated[list[str], typer.Option(help="ISO 639-1; repeatable.")] = [],
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a model into the models folder, with its size and SHA-256. No alias means it yet: see `activate`."""
    described = Description(
        name=name,
        type=_type(kind),
        backend=backend,
        version=version,
        dimension=dimension,
        context=context,
        languages=tuple(language),
    )
    with _store(folder) as store:
        entry = store.add(path, described)
        manifest = store.manifest()
    if as_json:
        show_json(_as_json(manifest, entry))
    else:
        show_table(["model", "sha256"], [(entry.key, entry.sha256)])


@app.command()
def verify(
    model: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare size and SHA-256 of the files with what was added. Exit status 1 if any model has changed."""
    with _store(folder) as store:
        manifest = store.manifest()
        entries = [_entry(manifest, model)] if model else list(manifest.models)
        wrong = [(entry.key, reason) for entry in entries if (reason := _what_is_wrong(store, entry))]
    if as_json:
        show_json({"verified": len(entries) - len(wrong), "wrong": {str(key): reason for key, reason in wrong}})
    else:
        show_table(["model", "what is wrong"], wrong)
    if wrong:
        raise CommandError(f"{len(wrong)} of {len(entries)} models are not what was added.", Exit.FAILED)
    say(f"{len(entries)} models are what was added.")


@app.command()
def activate(
    model: ModelArgument,
    alias: Annotated[str, typer.Option(help="The name by which requests ask for it.")] = "default",
    folder: FolderOption = None,
) -> None:
    """Let an alias mean this model. Services that run load it beside the old one, test it, and change over."""
    with _store(folder) as store:
        entry = _entry(store.manifest(), model)
        after = store.activate(alias, entry.key)
    _say_what_it_means(after, entry.type, alias)


@app.command()
def rollback(
    alias: Annotated[str, typer.Argument(help="The alias.")] = "default",
    kind: TypeOption = "embed",
    folder: FolderOption = None,
) -> None:
    """Let an alias mean what it meant before."""
    wanted = _type(kind)
    with _store(folder) as store:
        after = store.rollback(wanted, alias)
    _say_what_it_means(after, wanted, alias)


@app.command()
def drop(
    alias: Annotated[str, typer.Argument(help="The alias.")], kind: TypeOption = "embed", folder: FolderOption = None
) -> None:
    """Let an alias mean nothing any more. The models stay."""
    with _store(folder) as store:
        store.forget_alias(_type(kind), alias)
    say(f"{alias} means nothing any more.")


@app.command("rm")
def remove(model: ModelArgument, folder: FolderOption = None) -> None:
    """Delete a model that no alias means or can be rolled back to."""
    with _store(folder) as store:
        entry = _entry(store.manifest(), model)
        store.remove(entry.key)
    say(f"{entry.key} is gone.")


@contextmanager
def _store(folder: Path | None) -> Iterator[ModelStore]:
    try:
        yield ModelStore(folder or ModelStoreSettings.from_environment().folder)
    except SluiceError as error:
        status = {NotFound: Exit.NOT_FOUND, Conflict: Exit.CONFLICT}.get(type(error), Exit.FAILED)
        raise CommandError(error.detail, status) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}.", Exit.FAILED) from error
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error


def _entry(manifest: Manifest, model: str) -> ModelEntry:
    name, _, version = model.partition("@")
    return manifest.entry(Version(name=name, version=version)) if version else manifest.only_version(name)


def _type(given: str) -> ModelType:
    if given == "embed":
        return "embed"
    if given == "llm":
        return "llm"
    raise CommandError(f"--type is {given}; it can be embed or llm.", Exit.USAGE)


def _what_is_wrong(store: ModelStore, entry: ModelEntry) -> str | None:
    try:
        store.verified(entry)
    except SluiceError as error:
        return error.detail
    return None


def _aliases(manifest: Manifest, entry: ModelEntry) -> Iterator[str]:
    for name, alias in manifest.aliases.get(entry.type, {}).items():
        if alias.active == entry.key:
            yield name
        elif alias.previous == entry.key:
            yield f"{name} (previous)"


def _as_json(manifest: Manifest, entry: ModelEntry) -> dict[str, object]:
    return {**entry.model_dump(mode="json"), "aliases": list(_aliases(manifest, entry))}


def _say_what_it_means(manifest: Manifest, kind: ModelType, name: str) -> None:
    alias = manifest.aliases[kind][name]
    show_table(["alias", "type", "model", "previous"], [(name, kind, alias.active, alias.previous)])
