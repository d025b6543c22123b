"""Figures as people and programs read them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured value, and what it should be."""

    name: str
    value: float
    unit: str
    # What it should reach, as people say it, and whether it does.
    target: str | None = None
    reached: bool | None = None


def at_least(name: str, value: float, unit: str, target: float) -> Figure:
    """A figure that should not be lower."""
    return Figure(name, value, unit, f">= {target:g} {unit}".strip(), value >= target)


def at_most(name: str, value: float, unit: str, target: float) -> Figure:
    """A figure that should not be higher."""
    return Figure(name, value, unit, f"<= {target:g} {unit}".strip(), value <= target)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of pairs that were measured one after the other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def publish(benchmark: str, figures: Sequence[Figure], *, notes: str = "") -> None:
    """Print the figures and write them to `benchmarks/results/`."""
    table = Table(title=benchmark, title_justify="left", box=None)
    for column in ("figure", "value", "target", ""):
        table.add_column(column)
    for figure in figures:
        verdict = "" if figure.reached is None else ("reached" if figure.reached else "MISSED")
        table.add_row(figure.name, f"{figure.value:.3g} {figure.unit}", figure.target or "", verdict)
    console = Console(soft_wrap=True)
    console.print(table)
    if notes:
        console.print(f"  {notes}", markup=False)
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": benchmark,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "notes": notes,
        "figures": [asdict(figure) for figure in figures],
    }
    path = RESULTS / f"{benchmark.replace(' ', '_')}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
