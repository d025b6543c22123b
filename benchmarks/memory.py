"""Memory of the idle platform by process, and of a worker that reads a long PDF, and a very long text.

RSS counts pages that processes share once for each of them; PSS (proportional set size) counts them once in all.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from benchmarks.report import Figure, at_most, publish
from benchmarks.subject import Tenant
from infra.embedded.platform import Platform

PAGES = 300
LINES = 45
TEXT_MB = 50
MB = 1e6


def run(platform: Platform) -> None:
    """Measure, print, write."""
    parts = platform.status()
    figures = [
        Figure(f"{part.name}, idle", part.rss_bytes / MB, f"MB RSS, {_pss(part.pids) / MB:.0f} MB PSS")
        for part in parts
        if part.pids
    ]
    everything = [pid for part in parts for pid in part.pids]
    figures.append(at_most("in all, idle, RSS", sum(part.rss_bytes for part in parts) / MB, "MB", 1600))
    figures.append(Figure("in all, idle, PSS", _pss(everything) / MB, "MB"))
    figures.append(
        at_most(f"worker with child, {PAGES}-page PDF, peak RSS", _peak_of_long_pdf(platform) / MB, "MB", 700)
    )
    peak, seconds = _peak_of_long_text(platform)
    figures.append(at_most(f"worker with child, {TEXT_MB} MB of text cut into parts, peak RSS", peak / MB, "MB", 300))
    figures.append(Figure(f"{TEXT_MB} MB of text, from upload to parts", seconds, "s"))
    publish("memory", figures)


def _peak_of_long_pdf(platform: Platform) -> float:
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "long.pdf"
        _write_pdf(document)
        tenant = Tenant(platform)
        with _watched(platform) as peak:
            tenant.ingest([document])
    return peak.bytes


def _peak_of_long_text(platform: Platform) -> tuple[float, float]:
    """The most that a worker held until the parts were handed out, and the seconds until then; nothing is embedded."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "long.txt"
        _write_text(document)
        tenant = Tenant(platform)
        with _watched(platform) as peak:
            started = time.perf_counter()
            job = tenant.upload(document)
            tenant.wait_for_step(job, "embed")
            seconds = time.perf_counter() - started
        tenant.cancel(job)
    return peak.bytes, seconds


@dataclass
class _Peak:
    """The most memory so far."""

    bytes: int = 0


@contextmanager
def _watched(platform: Platform) -> Iterator[_Peak]:
    """The most memory that a worker process has, with its children, while the block runs."""
    peak = _Peak()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak.bytes = max(peak.bytes, _rss_of_busiest_worker(platform.pids("worker")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _rss_of_busiest_worker(pids: list[int]) -> int:
    """Of the worker process that has the most memory, its own children included."""
    return max((_rss(pid) + sum(_rss(child) for child in _children(pid)) for pid in pids[1:]), default=0)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _rss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _pss(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def _write_pdf(path: Path) -> None:
    canvas = Canvas(str(path), pagesize=A4)
    for page in range(1, PAGES + 1):
        for line in range(LINES):
            text = (
                f"Page {page}, line {line}: the maintainer of package number {page * LINES + line} reads its reports."
            )
            canvas.drawString(56, 800 - line * 16, text)
        canvas.showPage()
    canvas.save()


def _write_text(path: Path) -> None:
    paragraph = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < TEXT_MB * MB:
            paragraph += 1
            sentences = (
                f"In paragraph {paragraph}, sentence {n}, the maintainer answers report {paragraph * 7 + n} of the day."
                for n in range(5)
            )
            file.write(" ".join(sentences) + "\n\n")
