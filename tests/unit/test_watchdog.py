"""When something is given up as stuck for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sluice.watchdog import until_stuck_for_good


class Shows:
    """Answers whether it is alive: as told, and then no more."""

    def __init__(self, answers: Sequence[bool]) -> None:
        self._answers = list(answers)
        self.looks = 0

    def responsive(self) -> bool:
        self.looks += 1
        return bool(self._answers) and self._answers.pop(0)


def test_only_what_is_silent_at_one_look_after_the_other_is_given_up() -> None:
    shows = Shows([True, False, False, False, True, False, True])

    asyncio.run(asyncio.wait_for(until_stuck_for_good(shows.responsive, 0.0625), 30))

    assert shows.looks == 7 + 4
