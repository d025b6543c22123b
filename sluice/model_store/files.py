"""The files of a model: found without leaving the models folder, measured, digested."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG

from sluice.errors import NotFound, SluiceError


class UnsafePath(SluiceError):
    """A model's path leaves the models folder, or leads through a link."""

    code = "unsafe_path"


@dataclass(frozen=True)
class Fingerprint:
    """What changes when a model's files are changed by ordinary means; reading it costs no look at their contents."""

    files: tuple[tuple[str, int, int, int, int], ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for *_, size in self.files)


def located(folder: Path, relative: str) -> Path:
    """A model's place in the models folder; `UnsafePath` if a link is on the way, `NotFound` if it is missing."""
    place = folder
    for part in PurePosixPath(relative).parts:
        if part in {"..", "/"}:
            raise UnsafePath(f"{relative} leads out of {folder}.")
        place /= part
        if place.is_symlink():
            raise UnsafePath(f"{place} is a link. Models are read from files of the models folder only: copy it there.")
    if not place.exists():
        raise NotFound(f"{place} is missing. Add the model again.", code="model_files_missing")
    return place


def fingerprint(model: Path) -> Fingerprint:
    """Name, device, inode, time of change and size of each file; `UnsafePath` if one is no ordinary file."""
    return Fingerprint(tuple(_facts(model, file) for file in _files(model)))


def digest(model: Path) -> str:
    """SHA-256 of a file as `sha256sum` prints it; of a folder, over each file's name, size and digest in order."""
    if model.is_file():
        return _file_digest(model)
    whole = hashlib.sha256()
    for file in _files(model):
        name = file.relative_to(model).as_posix()
        whole.update(f"{name}\0{file.stat().st_size}\0{_file_digest(file)}\n".encode())
    return whole.hexdigest()


def _files(model: Path) -> Iterator[Path]:
    if not model.is_dir():
        yield model
        return
    for file in sorted(model.rglob("*"), key=lambda file: file.relative_to(model).as_posix()):
        if file.is_symlink() or not file.is_dir():
            yield file


def _facts(model: Path, file: Path) -> tuple[str, int, int, int, int]:
    found = file.lstat()
    if S_ISLNK(found.st_mode) or not S_ISREG(found.st_mode):
        raise UnsafePath(f"{file} is a link or no ordinary file. A model has ordinary files only: copy it.")
    name = file.relative_to(model).as_posix()
    return name, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _file_digest(file: Path) -> str:
    with file.open("rb", buffering=0) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
