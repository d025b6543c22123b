"""`sluice models`: works on the models folder; only what is outdated is asked of the API."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from services.cli import account
from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table, size
from sluice.embedding_models.calibration_texts import shipped_texts, texts_of
from sluice.embedding_models.layout import BUILT_IN, is_converted, read_model, read_static
from sluice.errors import Conflict, NotFound, SluiceError
from sluice.model_store.manifest import BACKENDS, Manifest, ModelEntry, ModelType
from sluice.model_store.store import Description, ModelStore
from sluice.settings import ModelStoreSettings

# EMB looks at the models folder every few seconds, and reads, warms and tests a model before it serves it.
_PATIENCE: Final = 30.0
_BETWEEN_LOOKS: Final = 1.0
_GGUF: Final = b"GGUF"

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
    path: Annotated[Path, typer.Argument(exists=True, help="A file (GGUF), or the folder of a model.")],
    kind: TypeOption,
    name: Annotated[str | None, typer.Option(help="What to call it; default: the name of the file or folder.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="What runs it; default: openvino (embed), llama_cpp (llm).")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Default: the first digits of its SHA-256.")] = None,
    dimension: Annotated[int | None, typer.Option(help="Numbers in a vector (embed, not converted).")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that it reads at most.")] = None,
    language: Annotated[list[str], typer.Option(help="ISO 639-1; repeatable.")] = [],
    texts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Passages of yours to calibrate on and judge by.")
    ] = None,
    allow_slower: Annotated[
        bool, typer.Option("--allow-slower", help="Accept it although its int8 form is not good enough.")
    ] = False,
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a model into the models folder, with its size and SHA-256. No alias means it yet: see `activate`.

    A folder of sentence-transformers becomes one that EMB runs fast: converted, quantized, and measured against the
    original on texts that it was not calibrated on. What is worse than a hundredth is refused, with figures.
    """
    described = Description(
        name=name or (path.name if path.is_dir() else path.stem),
        type=_type(kind),
        backend=_backend(kind, backend),
        version=version,
        dimension=dimension,
        context=context,
        languages=tuple(language),
    )
    with _store(folder) as store, _ready_to_run(path, described, texts, allow_slower=allow_slower) as (files, complete):
        entry = store.add(files, complete)
        manifest = store.manifest()
    if as_json:
        show_json(_as_json(manifest, entry))
    else:
        show_table(["model", "sha256"], [(entry.key, entry.sha256)])


@app.command()
def distill(
    name: Annotated[str, typer.Option(help="What to call the new model.")] = "static",
    source: Annotated[
        Path | None, typer.Option("--from", exists=True, file_okay=False, help="A converted model; default: built-in.")
    ] = None,
    folder: FolderOption = None,
) -> None:
    """Make a static model out of a converted one: very fast, less exact. Half a minute; see `activate`."""
    # Its libraries are those of EMB.
    static = _needed("sluice.embedding_models.static_model", "emb")
    origin = source or BUILT_IN
    with _store(folder) as store, TemporaryDirectory() as scratch:
        made = Path(scratch) / "model"
        languages = read_model(origin).languages
        facts = static.distill(origin, made, shipped_texts(languages), len(os.sched_getaffinity(0)))
        entry = store.add(
            made,
            _as_distilled(made, Description(name=name, type="embed", backend="static")),
        )
    say(f"Recall@10 {facts.recall_at_10:.3f}, of the original {facts.recall_at_10_of_source:.3f}.")
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
        entries = [manifest.named(model)] if model else list(manifest.models)
        wrong = [(entry.key, reason) for entry in entries if (reason := store.what_is_wrong(entry))]
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
        entry = store.manifest().named(model)
        after = store.activate(alias, entry.key)
    _say_what_it_means(after, entry.type, alias)
    _offer_reindex(after, entry.type, alias)


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
    _offer_reindex(after, wanted, alias)


@app.command()
def outdated(as_json: JsonOption = False) -> None:
    """List the sources with documents that the embedding models of now have not embedded. Asks the API."""
    with Client(account.load()) as client:
        found = client.call("GET", "/api/admin/models/outdated")
    if as_json:
        show_json(found)
        return
    show_table(
        ["source", "documents", "left behind"],
        [(each["source"], each["documents"], each["outdated"]) for each in found["sources"]],
    )
    _say_what_to_do(found)


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
        entry = store.manifest().named(model)
        store.remove(entry.key)
    say(f"{entry.key} is gone.")


@contextmanager
def _store(folder: Path | None) -> Iterator[ModelStore]:
    try:
        yield ModelStore(folder or ModelStoreSettings.from_environment().folder)
    except SluiceError as error:
        status = {NotFound: Exit.NOT_FOUND, Conflict: Exit.CONFLICT}.get(type(error), Exit.FAILED)
        raise CommandError(error.detail, Exit.USAGE if error.code == "invalid_name" else status) from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}.", Exit.FAILED) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", Exit.USAGE) from error


@contextmanager
def _ready_to_run(
    path: Path, described: Description, texts: Path | None, *, allow_slower: bool
) -> Iterator[tuple[Path, Description]]:
    """The files of a model as its backend runs them, and what is known of them then."""
    if described.type == "llm":
        _require_gguf(path)
    if described.type != "embed" or described.backend == "sentence_transformers":
        yield path, described
        return
    if described.backend == "static":
        # Not made here, only taken from elsewhere: `distill` makes them.
        yield path, _as_distilled(path, described)
        return
    if not is_converted(path):
        with TemporaryDirectory() as scratch:
            converted = Path(scratch) / "model"
            conversion = _needed("sluice.embedding_models.conversion", "models")
            conversion.convert(
                path,
                converted,
                texts=texts_of(texts) if texts else shipped_texts(described.languages),
                languages=described.languages,
                report=say,
                required="f32" if allow_slower else "int8",
            )
            yield converted, _as_converted(converted, described)
        return
    yield path, _as_converted(path, described)


def _needed(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise CommandError(
            f"This needs the extra `{extra}` ({error.name} is not installed): pip install 'sluice[{extra}]'.",
            Exit.NOT_CONFIGURED,
        ) from error


def _as_converted(folder: Path, described: Description) -> Description:
    model = read_model(folder)
    quality = model.forms[0].quality
    return replace(
        described,
        dimension=model.dimension,
        context=model.max_tokens,
        languages=model.languages,
        measured=tuple(quality.model_dump().items()),
    )


def _as_distilled(folder: Path, described: Description) -> Description:
    facts = read_static(folder)
    return replace(
        described,
        dimension=facts.dimension,
        context=facts.max_tokens,
        languages=facts.languages,
        measured=(("recall_at_10", facts.recall_at_10),),
    )


def _type(given: str) -> ModelType:
    if given == "embed":
        return "embed"
    if given == "llm":
        return "llm"
    raise CommandError(f"--type is {given}; it can be embed or llm.", Exit.USAGE)


def _backend(kind: str, given: str | None) -> str:
    known = BACKENDS[_type(kind)]
    if given is not None and given not in known:
        raise CommandError(f"--backend is {given}; for --type {kind} it can be {', '.join(known)}.", Exit.USAGE)
    return given or known[0]


def _require_gguf(path: Path) -> None:
    if path.is_dir():
        raise CommandError(f"{path} is a folder. A language model is one file in GGUF format.", Exit.FAILED)
    with path.open("rb") as file:
        if file.read(len(_GGUF)) != _GGUF:
            raise CommandError(
                f"{path.name} is no GGUF file. Download it again, or convert the model with llama.cpp's "
                "convert_hf_to_gguf.py.",
                Exit.FAILED,
            )


def _aliases(manifest: Manifest, entry: ModelEntry) -> list[str]:
    return [name if role == "active" else f"{name} ({role})" for name, role in manifest.meant_by(entry).items()]


def _as_json(manifest: Manifest, entry: ModelEntry) -> dict[str, object]:
    return {**entry.model_dump(mode="json"), "aliases": _aliases(manifest, entry)}


def _say_what_it_means(manifest: Manifest, kind: ModelType, name: str) -> None:
    alias = manifest.aliases[kind][name]
    show_table(["alias", "type", "model", "previous"], [(name, kind, alias.active, alias.previous)])


def _offer_reindex(manifest: Manifest, kind: ModelType, alias: str) -> None:
    """Tell what follows: of the index, what is left behind now that the alias means another model."""
    if kind != "embed":
        say(
            "LLM changes over within seconds. If it cannot load the model, it goes on with the one it has, and its log "
            "and GET /api/admin/models say why: then `sluice models rollback --type llm`."
        )
        return
    try:
        with Client(account.load()) as client:
            found = _once_served(client, alias, str(manifest.aliases[kind][alias].active))
    except CommandError as error:
        say(f"Which documents it has not embedded is not known here. {error}")
        found = None
    if found is None:
        say("Once EMB serves it, `sluice models outdated` lists the sources to index again.")
        return
    for source in found["sources"]:
        say(f"{source['source']}: {source['outdated']} of {source['documents']} documents are left behind.")
    _say_what_to_do(found)


def _once_served(client: Client, alias: str, model: str) -> dict[str, Any] | None:
    """What is outdated once EMB serves the model, or None if that takes long."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.call("GET", "/api/admin/models/outdated")
        # No document is indexed under an alias that is not there.
        if found["models"].get(alias, model) == model:
            return found
        time.sleep(_BETWEEN_LOOKS)
    return None


def _say_what_to_do(found: dict[str, Any]) -> None:
    if not found["outdated"]:
        say(f"All {found['documents']} documents are found by meaning.")
        return
    say(
        f"{found['outdated']} of {found['documents']} documents are found by their words alone until they are indexed "
        "again: sluice sources reindex SOURCE"
    )
