"""`models/manifest.json`: the models that were added, and the one that each alias means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sluice.errors import Conflict, NotFound, SluiceError

ModelType = Literal["embed", "llm"]

BACKENDS: Final[dict[ModelType, tuple[str, ...]]] = {
    "embed": ("openvino", "sentence_transformers", "static"),
    "llm": ("llama_cpp",),
}
"""What runs models of the folder; the default first."""

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Of a model, version or alias: safe as a part of a path, a URL and a collection."""

SCHEMA: Final = 1


class ManifestUnreadable(SluiceError):
    """The manifest of the models folder is not what this version writes."""

    code = "manifest_unreadable"


def _confined(path: str) -> str:
    given = PurePosixPath(path)
    leaves = given.is_absolute() or ".." in given.parts or not given.parts
    if leaves or "\\" in path or "\0" in path:
        raise ValueError("must be a path inside of the models folder, without `..`")
    return given.as_posix()


class ModelEntry(BaseModel):
    """A model: one file, or a folder of files."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Name
    version: Name
    type: ModelType
    path: Annotated[str, AfterValidator(_confined)] = Field(description="Inside of the models folder")
    size: int = Field(ge=0, description="Bytes of all its files")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file; of a folder: of all its files in order")
    backend: Name = Field(description="What runs it: the name of a backend of EMB or LLM")
    dimension: int | None = Field(None, ge=1, description="Numbers in a vector (embed)")
    context: int | None = Field(None, ge=1, description="Tokens that it reads at most")
    languages: tuple[Name, ...] = Field((), description="ISO 639-1; empty: not known")
    measured: dict[str, float] = Field({}, description="What was measured when it was added, such as its recall")

    @property
    def key(self) -> Version:
        """What an alias says to mean this model."""
        return Version(name=self.name, version=self.version)

    @model_validator(mode="after")
    def _vectors_have_a_length(self) -> Self:
        if self.type == "embed" and self.dimension is None:
            raise ValueError("a model of type embed needs its dimension")
        return self


class Version(BaseModel):
    """One version of a model, by name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Name
    version: Name

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Alias(BaseModel):
    """What an alias means now, and what it meant before."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    active: Version
    previous: Version | None = None


class Manifest(BaseModel):
    """All models and aliases. A value: every change makes a new one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # `schema` is taken by pydantic.
    schema_version: Literal[1] = Field(SCHEMA, alias="schema")
    models: tuple[ModelEntry, ...] = ()
    aliases: dict[ModelType, dict[Name, Alias]] = {}

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        keys = [entry.key for entry in self.models]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"{twice} is listed twice")
        for kind, names in self.aliases.items():
            known = {entry.key for entry in self.models if entry.type == kind}
            for name, alias in names.items():
                if lost := next((one for one in (alias.active, alias.previous) if one and one not in known), None):
                    raise ValueError(f"the alias {name} means {lost}, and no such model of type {kind} is listed")
        return self

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """The manifest in this file, or `ManifestUnreadable` with what is wrong in it."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "manifest.json"
            raise ManifestUnreadable(
                f"manifest.json cannot be used: {place}: {first['msg']}. Nothing of it is loaded until that is mended."
            ) from error

    def content(self) -> bytes:
        """The manifest as a file."""
        return self.model_dump_json(by_alias=True, exclude_defaults=False, indent=1).encode() + b"\n"

    def entry(self, wanted: Version) -> ModelEntry:
        """The model of this name and version, or `NotFound`."""
        found = next((entry for entry in self.models if entry.key == wanted), None)
        if found is None:
            raise self._no_model(wanted)
        return found

    def only_version(self, name: str) -> ModelEntry:
        """The model of this name if it has one version; `Conflict` names the versions if it has more."""
        found = [entry for entry in self.models if entry.name == name]
        if len(found) > 1:
            raise Conflict(f"{name} has several versions; say which: {', '.join(str(one.key) for one in found)}.")
        if not found:
            raise self._no_model(name)
        return found[0]

    def named(self, given: str) -> ModelEntry:
        """The model that somebody calls NAME, or NAME@VERSION where there are several."""
        if "@" not in given:
            return self.only_version(given)
        found = next((entry for entry in self.models if str(entry.key) == given), None)
        if found is None:
            raise self._no_model(given)
        return found

    def meant_by(self, entry: ModelEntry) -> dict[str, Literal["active", "previous"]]:
        """The aliases that mean this model, and those that can be rolled back to it."""
        meant: dict[str, Literal["active", "previous"]] = {}
        for name, alias in self.aliases.get(entry.type, {}).items():
            if alias.active == entry.key:
                meant[name] = "active"
            elif alias.previous == entry.key:
                meant[name] = "previous"
        return meant

    def active(self, kind: ModelType) -> dict[str, ModelEntry]:
        """The model behind each alias of this kind."""
        return {name: self.entry(alias.active) for name, alias in self.aliases.get(kind, {}).items()}

    def with_model(self, entry: ModelEntry) -> Self:
        """A manifest with one more model."""
        return self._with(models=(*self.models, entry))

    def without_model(self, gone: Version) -> Self:
        """A manifest without a model; `Conflict` while an alias means it or can be rolled back to it."""
        self.entry(gone)
        for kind, name, alias in self._aliases():
            if gone == alias.active:
                raise Conflict(f"{gone} is what the alias {name} ({kind}) means. Activate another model first.")
            if gone == alias.previous:
                raise Conflict(
                    f"The alias {name} ({kind}) can be rolled back to {gone}. Activate another for it, or drop it."
                )
        return self._with(models=tuple(entry for entry in self.models if entry.key != gone))

    def activated(self, name: str, wanted: Version) -> Self:
        """A manifest with an alias that means another model; what it meant is kept as its previous one."""
        kind = self.entry(wanted).type
        before = self.aliases.get(kind, {}).get(name)
        if before is None:
            return self._with_alias(kind, name, Alias(active=wanted))
        if before.active == wanted:
            return self
        return self._with_alias(kind, name, Alias(active=wanted, previous=before.active))

    def rolled_back(self, kind: ModelType, name: str) -> Self:
        """A manifest with an alias that means what it meant before; a second time takes that back."""
        alias = self.aliases.get(kind, {}).get(name)
        if alias is None:
            raise NotFound(f"No alias {name} of type {kind}.", code="alias_not_found")
        if alias.previous is None:
            raise Conflict(f"The alias {name} ({kind}) has never meant another model.")
        return self._with_alias(kind, name, Alias(active=alias.previous, previous=alias.active))

    def put_back(self, kind: ModelType, name: str, before: Self) -> Self:
        """A manifest with an alias that means what it meant in an earlier one, or nothing if it meant nothing there."""
        alias = before.aliases.get(kind, {}).get(name)
        return self.without_alias(kind, name) if alias is None else self._with_alias(kind, name, alias)

    def without_alias(self, kind: ModelType, name: str) -> Self:
        """A manifest without an alias."""
        if name not in self.aliases.get(kind, {}):
            raise NotFound(f"No alias {name} of type {kind}.", code="alias_not_found")
        names = {other: alias for other, alias in self.aliases[kind].items() if other != name}
        return self._with(aliases={**self.aliases, kind: names})

    def _with_alias(self, kind: ModelType, name: str, alias: Alias) -> Self:
        return self._with(aliases={**self.aliases, kind: {**self.aliases.get(kind, {}), name: alias}})

    def _with(self, **changes: object) -> Self:
        held = {"schema": self.schema_version, "models": self.models, "aliases": self.aliases}
        return type(self).model_validate(held | changes)

    def _no_model(self, wanted: object) -> NotFound:
        known = ", ".join(str(entry.key) for entry in self.models) or "none"
        return NotFound(f"No model {wanted}; there are: {known}.", code="model_not_found")

    def _aliases(self) -> Iterator[tuple[ModelType, str, Alias]]:
        for kind, names in self.aliases.items():
            for name, alias in names.items():
                yield kind, name, alias
