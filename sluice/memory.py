"""Memory for models: whether there is enough for one more, before anybody is killed for it, and giving it back."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sluice.errors import Conflict

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


class NotEnoughMemory(Conflict):
    """There is no memory for this model beside those that are loaded."""

    code = "not_enough_memory"


def require_memory(needed: int, what: str) -> None:
    """`NotEnoughMemory` if fewer than `needed` bytes are free for this process; nothing where that is not known."""
    free = free_memory()
    if free is not None and free < needed:
        raise NotEnoughMemory(
            f"{what} needs about {needed // 1024**2} MB beside the models that serve, and {free // 1024**2} MB are "
            "free. Give the process more memory, or stop it and start it with the new model alone."
        )


def free_memory(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Bytes that this process can still take: of the machine, or of its cgroup if that is less."""
    known = [free for free in (_machine(meminfo), _unified(cgroup), _first_hierarchy(cgroup)) if free is not None]
    return max(0, min(known)) if known else None


def give_back_free_memory() -> None:
    """Return freed memory to the operating system, where the C library can (glibc); elsewhere nothing happens.

    glibc keeps what is freed: some 200 MB after embedding batches of many shapes, a whole model after it was exchanged.
    To have it return everything at once, by `MALLOC_TRIM_THRESHOLD_`, costs EMB a third of its throughput; to return it
    when there is nothing to do costs nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _machine(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _unified(cgroup: Path) -> int | None:
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        return None
    # Pages of files that were read long ago are given up before anybody is killed.
    return limit - used + _counter(cgroup / "memory.stat", "inactive_file")


def _first_hierarchy(cgroup: Path) -> int | None:
    folder = cgroup / "memory"
    limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    return limit - used + _counter(folder / "memory.stat", "total_inactive_file")


def _counter(file: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(file) if line.startswith(f"{name} ")), 0)


def _number(file: Path) -> int | None:
    lines = _lines(file)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
