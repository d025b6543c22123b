"""Seeing that what computes is stuck for good: then only a new process helps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

GIVE_UP_SECONDS: Final = 45.0
"""What has not shown itself for this long, after it was found stuck, will not any more."""
_LOOK_SECONDS: Final = 1.0
_FEWEST_LOOKS: Final = 4


async def until_stuck_for_good(responsive: Callable[[], bool], give_up_seconds: float = GIVE_UP_SECONDS) -> None:
    """Return once `responsive` has been false for so long, at each look.

    Looks are counted, and not the time between them: a process that was stopped as a whole has not been stuck.
    """
    pause = min(_LOOK_SECONDS, give_up_seconds / _FEWEST_LOOKS)
    missed = 0
    while missed * pause < give_up_seconds:
        await asyncio.sleep(pause)
        missed = 0 if responsive() else missed + 1
