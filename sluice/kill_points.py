"""Named places in the code where a test may kill the process, stop it or make it wait.

After `dbos/_debug_trigger.py` of DBOS. Armed by files: `FOLDER/<point>/<subject>` strikes once for that document (or
step), `FOLDER/<point>/any` once for whichever comes first; the file's content says what happens. Whoever removes the
file strikes, so that two processes never strike for one file. Without `SLUICE_KILL_POINTS` a point costs one
comparison; `SLUICE_KILL_POINTS` without `SLUICE_ENVIRONMENT=test` keeps a process from starting.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from sluice.settings import KillPointSettings
from sluice.telemetry import logger

ANY: Final = "any"
log = logger()


class KillPoint(StrEnum):
    """Where a process may be struck."""

    AFTER_CLAIM = "after_claim"
    AFTER_EXTRACT = "after_extract"
    AFTER_CHUNK = "after_chunk"
    IN_EMBED_PART = "in_embed_part"
    AFTER_EMBED = "after_embed"
    AFTER_UPSERT_BEFORE_COMMIT = "after_upsert_before_commit"
    AFTER_COMMIT_BEFORE_ACK = "after_commit_before_ack"
    IN_HEARTBEAT = "in_heartbeat"
    RELAY_AFTER_PUBLISH_BEFORE_MARK = "relay_after_publish_before_mark"


class _Armory:
    """The folder of this process, once it is known."""

    folder: Path | None = None


def load_kill_points() -> None:
    """Read `SLUICE_KILL_POINTS`; `SettingsError` where the environment is production."""
    _Armory.folder = KillPointSettings.from_environment().kill_points


def strike(point: KillPoint, subject: object = None) -> None:
    """Do what is armed here for this subject, a document or step; nothing, when nothing is."""
    if _Armory.folder is None:
        return
    for name in (str(subject), ANY):
        armed = _Armory.folder / point.value / name
        try:
            command = armed.read_text(encoding="utf-8").strip()
            armed.unlink()
        except OSError:
            continue
        log.warning("kill_point.struck", point=point.value, subject=str(subject), command=command)
        _obey(command)
        return


def arm(folder: Path, point: KillPoint, subject: object = ANY, command: str = "KILL") -> None:
    """Have a process struck at `point`, once: `KILL`, `STOP`, `SEGV` (signals), `sleep SECONDS` or `raise`."""
    place = folder / point.value
    place.mkdir(parents=True, exist_ok=True)
    # Appears whole, or a process might read half a command.
    draft = place / f".{subject}"
    draft.write_text(command, encoding="utf-8")
    draft.rename(place / str(subject))


def armed(folder: Path) -> list[tuple[KillPoint, str]]:
    """What has not struck yet."""
    return [
        (point, file.name)
        for point in KillPoint
        for file in sorted((folder / point.value).glob("[!.]*"))
    ]  # fmt: skip


def disarm(folder: Path) -> None:
    """Let nothing strike any more."""
    for point, subject in armed(folder):
        with suppress(FileNotFoundError):
            (folder / point.value / subject).unlink()


def _obey(command: str) -> None:
    verb, _, argument = command.partition(" ")
    if verb == "sleep":
        time.sleep(float(argument))
    elif verb == "raise":
        raise RuntimeError("A kill point was told to raise.")
    else:
        os.kill(os.getpid(), signal.Signals[f"SIG{verb}"])
