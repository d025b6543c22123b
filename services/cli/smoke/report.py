"""The suite's results for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from services.cli.smoke.suite import Report, Result

_MARKS: Final = {"passed": "ok", "failed": "FAIL", "skipped": "-"}


def line_of(result: Result) -> str:
    """A result for people: one line, and two more when it failed."""
    mark = _MARKS[result.state]
    if result.state == "skipped":
        return f"{mark:<5}{result.name:<10} {'':>8}     {result.error}"
    seen = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in result.seen.items())
    line = f"{mark:<5}{result.name:<10} {result.milliseconds:>8.0f} ms  {seen}".rstrip()
    if result.state == "failed":
        line += f"\n       {result.error}\n       look at: {result.look_at}"
    return line


def for_programs(url: str, report: Report) -> dict[str, Any]:
    """The whole report for programs."""
    seen = {name: value for result in report.results if result.name == "version" for name, value in result.seen.items()}
    return {
        "url": url,
        "version": seen.get("version"),
        "commit": seen.get("commit"),
        "passed": not report.failed,
        "checks": [_as_dict(result) for result in report.results],
        "left_behind": [asdict(left) for left in report.left],
    }


def _as_dict(result: Result) -> dict[str, Any]:
    found = asdict(result)
    del found["status"]
    return found
