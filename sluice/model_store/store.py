"""The models folder. Many processes may read it while one changes it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sluice.errors import Conflict, Invalid, NotFound, SluiceError
from sluice.model_store.files import Fingerprint, digest, fingerprint, located
from sluice.model_store.manifest import NAME_PATTERN, Manifest, ModelEntry, ModelType, Version

MANIFEST: Final = "manifest.json"
_LOCK: Final = ".lock"
_INCOMING: Final = ".incoming"
_VERSION_DIGITS: Final = 12


class NotWhatWasAdded(SluiceError):
    """A model's files are not those that were added."""

    code = "model_changed"


@dataclass(frozen=True)
class Description:
    """What is to be known of a model besides its files."""

    name: str
    type: ModelType
    backend: str
    version: str | None = None
    """Default: the first digits of its digest."""
    dimension: int | None = None
    context: int | None = None
    languages: tuple[str, ...] = ()
    measured: tuple[tuple[str, float], ...] = ()


class ModelStore:
    """The models in a folder. May be used by many threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._verified: dict[str, tuple[ModelEntry, Fingerprint]] = {}

    def manifest(self) -> Manifest:
        """What the folder holds; an empty manifest where there is none, `ManifestUnreadable` where it is broken."""
        try:
            return Manifest.parse((self.folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            return Manifest()

    def changed_at(self) -> tuple[int, int]:
        """A value that is another after every change of the manifest; reading it is nearly free."""
        try:
            found = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns

    def verified(self, entry: ModelEntry) -> Path:
        """Where a model's files are, after size and digest were found to be right: call this before loading.

        A model that has not been touched since (inodes, times and sizes are the same) is not digested again by this
        object. Raises `NotWhatWasAdded`, `UnsafePath` or `NotFound`.
        """
        place = located(self.folder, entry.path)
        now = fingerprint(place)
        if self._verified.get(entry.path) == (entry, now):
            return place
        if now.size != entry.size:
            raise NotWhatWasAdded(f"{entry.key} has {now.size} bytes, and had {entry.size} when it was added.")
        found = digest(place)
        if found != entry.sha256:
            raise NotWhatWasAdded(
                f"{entry.key} has SHA-256 {found}, and had {entry.sha256} when it was added. Add it again."
            )
        self._verified[entry.path] = (entry, now)
        return place

    def what_is_wrong(self, entry: ModelEntry) -> str | None:
        """Why a model's files are not what was added; None if they are. A new store reads all of them."""
        try:
            self.verified(entry)
        except SluiceError as error:
            return error.detail
        return None

    def add(self, source: Path, described: Description) -> ModelEntry:
        """Copy a file or folder into the models folder and list it.

        The same files under the same name twice are one model: the entry that exists is returned. `Conflict` if this
        name and version exist with other contents.
        """
        if not source.exists():
            raise NotFound(f"{source} does not exist.")
        fingerprint(source)  # refuses links
        _require_name(described.name)
        if described.version is not None:
            _require_name(described.version)
        with self._locked(), self._incoming() as copy:
            _copy(source, copy)
            return self._list(copy, source.name if source.is_file() else None, described)

    def activate(self, alias: str, wanted: Version) -> Manifest:
        """Let an alias mean this model, once its files are verified. The one it meant is kept for `rollback`."""
        return self._change(lambda now: now.activated(alias, wanted), check=wanted)

    def rollback(self, kind: ModelType, alias: str) -> Manifest:
        """Let an alias mean what it meant before, once those files are verified."""

        def back(now: Manifest) -> Manifest:
            after = now.rolled_back(kind, alias)
            self.verified(after.active(kind)[alias])
            return after

        return self._change(back)

    def put_back(self, kind: ModelType, alias: str, *, before: Manifest, after: Manifest) -> Manifest:
        """Undo the change of an alias from `before` to `after`, unless it has been changed again."""

        def undone(now: Manifest) -> Manifest:
            unchanged = now.aliases.get(kind, {}).get(alias) == after.aliases[kind][alias]
            return now.put_back(kind, alias, before) if unchanged else now

        return self._change(undone)

    def forget_alias(self, kind: ModelType, alias: str) -> Manifest:
        """Let an alias mean nothing any more."""
        return self._change(lambda now: now.without_alias(kind, alias))

    def remove(self, gone: Version) -> None:
        """Delete a model that no alias means or can be rolled back to."""
        with self._locked():
            before = self.manifest()
            entry = before.entry(gone)
            self._write(before.without_model(gone))
            # Listed no more, so nobody begins to load it; whoever has it open keeps it.
            try:
                place = located(self.folder, entry.path)
            except NotFound:
                return
            _delete(place)
            for parent in place.parents:
                if parent == self.folder or any(parent.iterdir()):
                    break
                parent.rmdir()

    def _list(self, copy: Path, file_name: str | None, described: Description) -> ModelEntry:
        sha256 = digest(copy)
        key = Version(name=described.name, version=described.version or sha256[:_VERSION_DIGITS])
        now = self.manifest()
        existing = next((entry for entry in now.models if entry.key == key), None)
        if existing is not None:
            if existing.sha256 == sha256:
                return existing
            raise Conflict(f"{key} exists with other contents. A version never changes: give this one another.")
        path = "/".join(filter(None, (key.name, key.version, file_name)))
        entry = ModelEntry(
            name=key.name,
            version=key.version,
            type=described.type,
            path=path,
            size=fingerprint(copy).size,
            sha256=sha256,
            backend=described.backend,
            dimension=described.dimension,
            context=described.context,
            languages=described.languages,
            measured=dict(described.measured),
        )
        after = now.with_model(entry)
        place = self.folder / path
        _delete(place)  # left by an `add` that was killed before the manifest was written
        place.parent.mkdir(parents=True, exist_ok=True)
        copy.rename(place)
        self._write(after)
        return entry

    def _change(self, change: Callable[[Manifest], Manifest], *, check: Version | None = None) -> Manifest:
        with self._locked():
            before = self.manifest()
            if check is not None:
                self.verified(before.entry(check))
            after = change(before)
            if after != before:
                self._write(after)
            return after

    def _write(self, manifest: Manifest) -> None:
        fresh = self.folder / f".{MANIFEST}.new"
        with fresh.open("wb") as stream:
            stream.write(manifest.content())
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(self.folder / MANIFEST)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        # Inside of the folder, so that its last move is a rename; one at a time, under the lock.
        place = self.folder / _INCOMING
        _delete(place)
        try:
            yield place
        finally:
            _delete(place)


def _require_name(name: str) -> None:
    # The manifest lies beside the models' folders.
    if name == MANIFEST or not re.fullmatch(NAME_PATTERN, name):
        raise Invalid(
            f"{name!r} cannot be the name or version of a model: up to 96 letters, digits, '.', '_' and '-', a letter "
            f"or digit first, and not {MANIFEST}. Give it another.",
            code="invalid_name",
        )


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copyfile(source, target)
    for file in (target, *target.rglob("*")):
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())


def _delete(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
