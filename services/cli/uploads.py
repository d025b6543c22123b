"""Uploading files and watching them become ready, several at a time, a bar for each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from services.cli.client import Client
from services.cli.exit_codes import CommandError
from services.cli.output import err, say, size

_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    path: str
    state: str
    document_id: str | None = None
    job_id: str | None = None
    duplicate: bool = False
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the file will not be found by a search."""
        return self.state in ("failed", "canceled", "refused")

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def files_in(paths: Sequence[Path], *, recursive: bool) -> list[Path]:
    """The files that were named, and those in the folders that were named; hidden ones are left out."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = path.rglob("*") if recursive else path.iterdir()
            found += sorted(file for file in inside if file.is_file() and not file.name.startswith("."))
        else:
            found.append(path)
    return found


def upload_all(client: Client, files: Sequence[Path], source_id: str, tags: list[str], *, wait: bool) -> list[Outcome]:
    """Upload the files and, if `wait`, watch each until it is ready or has failed; in the order of the files."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress, ThreadPoolExecutor(_AT_ONCE) as pool:
        bars = [_Bar(progress, file) for file in files]
        running = [
            pool.submit(_upload, client, file, source_id, tags, bar=bar, wait=wait)
            for file, bar in zip(files, bars, strict=True)
        ]
        return [each.result() for each in running]


class _Bar:
    """The line of one file; plain lines, one for each step, where there is no terminal."""

    def __init__(self, progress: Progress, file: Path) -> None:
        self._progress = progress
        self._name = file.name
        self._task: TaskID = progress.add_task(file.name, total=None, step="waiting", start=False)
        self._step = ""

    def begin(self, total: int) -> None:
        self._progress.start_task(self._task)
        self._progress.update(self._task, total=total, completed=0, step=f"uploading {size(total)}")

    def sent(self, number: int) -> None:
        self._progress.update(self._task, advance=number)

    def show(self, step: str, done: int = 0, total: int | None = None) -> None:
        of = f" {done} of {total}" if total else ""
        self._progress.update(self._task, step=f"{step}{of}", completed=done, total=total)
        if step != self._step and self._progress.disable:
            say(f"{self._name}: {step}{of}")
        self._step = step

    def end(self, state: str) -> None:
        self._progress.update(self._task, step=state, completed=1, total=1)
        self._progress.stop_task(self._task)
        if self._progress.disable:
            say(f"{self._name}: {state}")


def _upload(client: Client, file: Path, source_id: str, tags: list[str], *, bar: _Bar, wait: bool) -> Outcome:
    try:
        bar.begin(file.stat().st_size)
        accepted = client.upload(file, source_id, tags, bar.sent)
    except (CommandError, OSError) as error:
        bar.end(f"refused: {error}")
        return Outcome(str(file), "refused", error=str(error))
    known = Outcome(
        str(file), accepted["state"], accepted["document_id"], accepted["job_id"], duplicate=accepted["duplicate"]
    )
    if not wait or accepted["state"] == "ready":
        bar.end("duplicate" if known.duplicate else known.state)
        return known
    return _watch(client, known, bar)


def _watch(client: Client, known: Outcome, bar: _Bar) -> Outcome:
    seen: dict[str, Any] = {"state": known.state, "error": None}
    try:
        for _, seen in client.watch_job(str(known.job_id)):
            bar.show(seen["step"] or seen["state"], seen["done"], seen["total"])
    except CommandError as error:
        bar.end(f"unknown: {error}")
        return Outcome(known.path, "failed", known.document_id, known.job_id, known.duplicate, str(error))
    reason = f"{seen['error']['detail']} [{seen['error']['code']}]" if seen["error"] else None
    bar.end(seen["state"] if reason is None else f"{seen['state']}: {reason}")
    return Outcome(known.path, seen["state"], known.document_id, known.job_id, known.duplicate, reason)
