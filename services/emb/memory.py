"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes

_LIBRARY = ctypes.CDLL(None)


def give_back_free_memory() -> None:
    """Return freed memory to the operating system, where the C library can (glibc); elsewhere nothing happens.

    Batches of many shapes leave glibc with some 200 MB of freed memory. To have it return them at once, by
    `MALLOC_TRIM_THRESHOLD_`, costs a third of the throughput; to return them when there is nothing to do costs nothing.
    """
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)
