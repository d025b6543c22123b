"""Limits that a process puts on itself before it opens a file that somebody else made."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_OPEN_FILES: Final = 128
_CPU_GRACE_SECONDS: Final = 5


def confine(*, memory_bytes: int, cpu_seconds: float, file_bytes: int) -> None:
    """Cap address space, processor time and file sizes; no core dumps (they hold the document); die with the parent."""
    cpu = int(cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + _CPU_GRACE_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, the one that started it, ends (Linux only)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        raise SystemExit(1)
