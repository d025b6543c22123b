"""Which collections and aliases there are, kept in one small file that is replaced whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from uuid import uuid4

from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.collection import Collection
from infra.embedded.qdrant_server.refusals import AlreadyExists, WrongInput, no_such_collection


class Catalog:
    """All collections under one data folder, by name and by alias."""

    def __init__(self, data: Path) -> None:
        self._file = data / "catalog.json"
        self._folders = data / "collections"
        self._lock = RLock()
        self._collections: dict[str, Collection] = {}
        self._aliases: dict[str, str] = {}

    def open(self) -> None:
        """Open what the data folder holds, and clear away what a crash left behind."""
        self._folders.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self._file.read_text()) if self._file.exists() else {"collections": {}, "aliases": {}}
        known = {entry["folder"] for entry in kept["collections"].values()}
        for folder in self._folders.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder)
        for name, entry in kept["collections"].items():
            definition = rest.CreateCollection.model_validate(entry["definition"])
            self._collections[name] = Collection.open(name, self._folders / entry["folder"], definition)
        self._aliases = kept["aliases"]

    def close(self) -> None:
        """Write everything down and let go of the data folder."""
        with self._lock:
            for collection in self._collections.values():
                collection.close()

    def collections(self) -> list[Collection]:
        """Every collection, in the order of creation."""
        with self._lock:
            return list(self._collections.values())

    def has(self, name: str) -> bool:
        """Whether the name is a collection's or an alias's."""
        with self._lock:
            return self._aliases.get(name, name) in self._collections

    def collection(self, name: str) -> Collection:
        """The collection of this name or alias."""
        with self._lock:
            found = self._collections.get(self._aliases.get(name, name))
        if found is None:
            raise no_such_collection(name)
        return found

    def create(self, name: str, definition: rest.CreateCollection) -> None:
        """Add an empty collection."""
        with self._lock:
            if name in self._collections:
                raise AlreadyExists(f"Collection `{name}` already exists!")
            if name in self._aliases:
                raise WrongInput(f"Can't create collection with name {name}. Alias with the same name already exists")
            self._collections[name] = Collection.create(name, self._folders / str(uuid4()), definition)
            self._save()

    def delete(self, name: str) -> bool:
        """Remove the collection, its points and its aliases; False where there is none."""
        with self._lock:
            gone = self._collections.pop(name, None)
            if gone is None:
                return False
            self._aliases = {alias: target for alias, target in self._aliases.items() if target != name}
            self._save()
        gone.close()
        shutil.rmtree(gone.folder)
        return True

    def aliases(self, of: str | None = None) -> list[dict[str, str]]:
        """All aliases, or those of one collection."""
        with self._lock:
            return [
                {"alias_name": alias, "collection_name": target}
                for alias, target in self._aliases.items()
                if of is None or target == of
            ]

    def change_aliases(self, actions: Sequence[rest.AliasOperations]) -> None:
        """Carry out all actions or none; no reader sees a state in between."""
        with self._lock:
            changed = dict(self._aliases)
            for action in actions:
                self._apply(action, changed)
            self._aliases = changed
            self._save()

    def _apply(self, action: rest.AliasOperations, aliases: dict[str, str]) -> None:
        match action:
            case rest.CreateAliasOperation(create_alias=new):
                if new.collection_name not in self._collections:
                    raise no_such_collection(new.collection_name)
                self._refuse_taken(new.alias_name)
                aliases[new.alias_name] = new.collection_name
            case rest.DeleteAliasOperation(delete_alias=gone):
                aliases.pop(gone.alias_name, None)
            case rest.RenameAliasOperation(rename_alias=renamed):
                if renamed.old_alias_name not in aliases:
                    raise no_such_collection(renamed.old_alias_name)
                self._refuse_taken(renamed.new_alias_name)
                aliases[renamed.new_alias_name] = aliases.pop(renamed.old_alias_name)

    def _refuse_taken(self, alias: str) -> None:
        if alias in self._collections:
            raise AlreadyExists(f"Collection `{alias}` already exists!")

    def adopt(self, collection: Collection, copy: Path) -> None:
        """Let the collection go on with an optimized copy of itself."""
        collection.adopt(copy, lambda folder: self._save({collection.name: folder}))

    def _save(self, moved: dict[str, Path] | None = None) -> None:
        with self._lock:
            folders = {name: one.folder for name, one in self._collections.items()} | (moved or {})
            kept = {
                "collections": {
                    name: {
                        "folder": folders[name].name,
                        "definition": one.definition.model_dump(mode="json", exclude_none=True),
                    }
                    for name, one in self._collections.items()
                },
                "aliases": self._aliases,
            }
            _replace(self._file, json.dumps(kept, indent=1))


def _replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
