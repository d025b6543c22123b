"""Memory of the idle platform by process, and of a worker that reads a long PDF.

RSS counts pages that processes share once for each of them; PSS (proportional set size) counts them once in all.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import psutil
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from benchmarks.report import Figure, at_most, publish
from benchmarks.subject import Tenant
from infra.embedded.platform import Platform

PAGES = 300
LINES = 45
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
    publish("memory", figures)


def _peak_of_long_pdf(platform: Platform) -> float:
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _rss_of_busiest_worker(platform.pids("worker")))
            time.sleep(0.05)

    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "long.pdf"
        _write_pdf(document)
        tenant = Tenant(platform)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            tenant.ingest([document])
        finally:
            done.set()
            watcher.join()
    return peak


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
