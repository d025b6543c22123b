"""What an experiment found: figures, each beside the line that it must reach, and what the oracle objects to."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, Figure
from tests.chaos.verify import Violation

CI: Final = "ci"
LONG: Final = "long"
# Shown of each experiment; the file has all.
_MOST_VIOLATIONS: Final = 8
_console: Final = Console(soft_wrap=True, highlight=False)


def exactly(name: str, value: float, unit: str, target: float) -> Figure:
    """A figure that may be nothing else."""
    return Figure(name, value, unit, f"= {target:g} {unit}".strip(), value == target)


def measured(name: str, value: float, unit: str) -> Figure:
    """A figure that has no line to reach."""
    return Figure(name, value, unit)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(math.ceil(len(values) * percent / 100) - 1, 0)]


@dataclass(frozen=True)
class Result:
    """How an experiment ended."""

    name: str
    title: str
    # Hold on every machine.
    counts: Sequence[Figure]
    violations: Sequence[Violation]
    # Times and rates: they hold on a machine that has nothing else to do, so only the long profile judges them.
    times: Sequence[Figure] = ()
    seconds: float = field(default=0.0, compare=False)

    def missed(self, profile: str) -> list[str]:
        """What keeps it from having passed, in words; empty when it has."""
        judged = [*self.counts, *(self.times if profile == LONG else ())]
        figures = [f"{one.name}: {one.value:g} {one.unit}, not {one.target}" for one in judged if one.reached is False]
        return [*map(str, self.violations), *figures]


def show(result: Result, profile: str) -> None:
    """Print every figure beside its pass line."""
    table = Table(title=f"{result.name}  {result.title}", title_justify="left", title_style="bold", box=None)
    for column in ("figure", "value", "pass line", ""):
        table.add_column(column)
    exact = exactly("violations found by the oracle", len(result.violations), "", 0)
    for figure, is_judged in [
        *((figure, True) for figure in (exact, *result.counts)),
        *((figure, profile == LONG) for figure in result.times),
    ]:
        table.add_row(
            figure.name, f"{figure.value:.4g} {figure.unit}", figure.target or "", _verdict(figure, is_judged)
        )
    _console.print(table)
    for violation in result.violations[:_MOST_VIOLATIONS]:
        _console.print(f"  ! {violation}", markup=False)
    _console.print(f"  {'PASSED' if not result.missed(profile) else 'FAILED'} in {result.seconds:.0f} s\n")


def summarize(results: Sequence[Result], profile: str) -> None:
    """Print one line for each experiment."""
    table = Table(title=f"Fault experiments, profile {profile}", title_justify="left", title_style="bold", box=None)
    for column in ("", "experiment", "seconds", ""):
        table.add_column(column)
    for result in results:
        verdict = "FAILED" if result.missed(profile) else "passed"
        table.add_row(result.name, result.title, f"{result.seconds:.0f}", verdict)
    _console.print(table)


def write(results: Sequence[Result], profile: str) -> None:
    """Write all figures to `benchmarks/results/chaos.json`."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "benchmark": "chaos",
        "profile": profile,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "experiments": [{**asdict(result), "passed": not result.missed(profile)} for result in results],
    }
    path = RESULTS / "chaos.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def _verdict(figure: Figure, is_judged: bool) -> str:  # noqa: FBT001 - two words for one figure
    if figure.reached is None:
        return ""
    if figure.reached:
        return "reached"
    return "MISSED" if is_judged else "missed; not judged in this profile"
