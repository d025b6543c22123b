"""A folder of secrets: one per file, each written whole or not at all, never over another by accident."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from services.cli.exit_codes import CommandError, Exit

OWNER_ONLY: Final = 0o600
EVERYBODY: Final = 0o444


class SecretFolder:
    """The folder, for as long as nobody else writes to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    @contextmanager
    def locked(cls, path: Path, *, make: bool = False, readable: bool = False) -> Iterator[Self]:
        """The folder, with other commands kept out; made for its owner, or `readable` for all, if need be.

        Of two that fill the same folder at the same time, the second finds what the first has made.
        """
        with _in_words(path):
            if make and not path.exists():
                path.mkdir(parents=True)
                path.chmod(0o755 if readable else 0o700)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield cls(path)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def read(self, names: Iterable[str]) -> dict[str, str]:
        """The contents of those of these files that exist."""
        return {name: text for name in names if (text := self._text(name)) is not None}

    def write(self, name: str, text: str, mode: int = OWNER_ONLY) -> None:
        """Write a file."""
        self._put(name, text, mode, owner=None)

    def replace(self, name: str, text: str) -> None:
        """Write a file in the place of one that exists, for the same readers; the old one stays as NAME.previous."""
        found = (self._path / name).stat()
        owner = (found.st_uid, found.st_gid)
        self._put(f"{name}.previous", (self._path / name).read_text(encoding="utf-8"), OWNER_ONLY, owner)
        self._put(name, text, found.st_mode & 0o777, owner)

    def _text(self, name: str) -> str | None:
        try:
            return (self._path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def _put(self, name: str, text: str, mode: int, owner: tuple[int, int] | None) -> None:
        fresh = self._path / f".{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                if owner is not None and owner != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, *owner)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            fresh.replace(self._path / name)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(f"{error.filename or path}: {error.strerror}.", Exit.FAILED) from error
    except UnicodeDecodeError as error:
        raise CommandError(f"A file in {path} is not text: {error}.", Exit.FAILED) from error
