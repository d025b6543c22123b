"""How many threads a model may use: what this process is really given, not what the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_threads() -> int:
    """Threads for this process, by its CPU affinity and the quota of its cgroup."""
    return threads_for(len(os.sched_getaffinity(0)), cgroup_quota(_CGROUP_ROOT))


def threads_for(affinity: int, quota: float | None) -> int:
    """The lesser of the CPUs that may be used and the CPU time that is granted (rounded up), but at least one."""
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cgroup_quota(root: Path) -> float | None:
    """CPUs' worth of time that the cgroup mounted at `root` grants (v2, else v1), or None without a limit."""
    unified = _words(root / "cpu.max")
    if len(unified) == 2:  # noqa: PLR2004 - "quota period"
        return None if unified[0] == "max" else int(unified[0]) / int(unified[1])
    quota = _words(root / "cpu" / "cpu.cfs_quota_us")
    period = _words(root / "cpu" / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) < 0:
        return None
    return int(quota[0]) / int(period[0])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []
