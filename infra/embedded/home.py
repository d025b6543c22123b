"""Where one embedded platform keeps its state: everything under one folder, nothing outside it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.embedded.failures import PlatformError

HOME_VARIABLE: Final = "SLUICE_HOME"
# The kernel's limit for the path of a Unix socket is 107 bytes.
_SOCKET_PATH_BYTES: Final = 100


@dataclass(frozen=True)
class Home:
    """The folders of one platform. `root` is the checkout that its services run from."""

    path: Path
    root: Path

    @property
    def logs(self) -> Path:
        """One log per part, rotated."""
        return self.path / "logs"

    @property
    def secrets(self) -> Path:
        """Generated passwords and keys, one per file, for their owner only."""
        return self.path / "secrets"

    @property
    def run(self) -> Path:
        """Configurations that are written anew at every start, pid files, the lock."""
        return self.path / "run"

    @property
    def env_file(self) -> Path:
        """The `SLUICE_*` variables that the services got, for other commands to read."""
        return self.path / "env"

    @property
    def ports_file(self) -> Path:
        """The ports that were chosen at the first start."""
        return self.path / "ports.json"

    def data(self, part: str) -> Path:
        """What a part must not lose."""
        return self.path / "data" / part

    def log(self, part: str) -> Path:
        """The log of a part."""
        return self.logs / f"{part}.log"

    @property
    def tag(self) -> str:
        """Eight characters that no other platform on this machine has."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]

    @property
    def socket(self) -> Path:
        """The supervisor's Unix socket; outside the home where its path would be too long for the kernel."""
        inside = self.run / "supervisor.sock"
        if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES:
            return inside
        return Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}-{self.tag}" / "supervisor.sock"

    def make(self) -> None:
        """Make the folders."""
        if any(character in str(self.path) for character in "\"'\n"):
            raise PlatformError(
                f"The path {self.path} contains a quote or a line break; choose another with SLUICE_HOME."
            )
        # Others may pass through, not look around: as root, PostgreSQL's own user must reach its data.
        _make_folder(self.path, 0o711)
        _make_folder(self.path / "data", 0o711)
        for folder in (self.logs, self.secrets, self.run, self.socket.parent):
            _make_folder(folder, 0o700)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from starting or stopping parts of this platform meanwhile."""
        with (self.run / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlatformError(
                    f"Another command is starting or stopping the platform in {self.path}; wait until it has ended."
                ) from None
            yield


def _make_folder(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PlatformError(f"{folder} belongs to another user; run as that user, or choose another SLUICE_HOME.")
    folder.chmod(mode)


def write_private(file: Path, text: str) -> None:
    """Replace the file as a whole; only its owner can read it."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:  # noqa: PTH123 - no mode there
        stream.write(text)
    fresh.replace(file)
