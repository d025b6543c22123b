"""How much memory this process may still take, and giving back what it does not need."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def available_bytes(memory: Path = _MEMORY, cgroup: Path = _CGROUP) -> int:
    """What the machine has left, or the cgroup, whichever is less. Files that were read count as free."""
    return min([_of_machine(memory), *_of_cgroup(cgroup)])


def give_back_free_memory() -> None:
    """Return freed memory to the operating system, where the C library can (glibc); elsewhere nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _of_machine(memory: Path) -> int:
    lines = dict(line.split(":", 1) for line in memory.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _of_cgroup(cgroup: Path) -> list[int]:
    """What is left of the limit (v2, else v1); nothing where there is none."""
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            words = (cgroup / limit).read_text(encoding="ascii").strip()
            taken = int((cgroup / used).read_text(encoding="ascii"))
            facts = dict(line.split() for line in (cgroup / stat).read_text(encoding="ascii").splitlines())
        except (OSError, ValueError):
            continue
        return [] if words == "max" else [int(words) - taken + int(facts.get("inactive_file", 0))]
    return []
