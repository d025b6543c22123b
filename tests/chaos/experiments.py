"""All experiments, by their names in the order of running."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from typing import Final

from sluice import kill_points
from tests.chaos import (
    sm_state_machine,
    x01_kill_points,
    x02_worker_killed,
    x03_zombies,
    x04_broker_restarts,
    x05_database_restarts,
    x06_relay_dies,
    x07_broker_forgets,
    x08_memory_alarm,
    x09_poison,
    x10_cancel,
    x11_same_work_at_once,
    x12_slow_steps_and_rolling_restarts,
)
from tests.chaos.lab import Lab
from tests.chaos.results import Result
from tests.chaos.verify import Violation

EXPERIMENTS: Final[dict[str, Callable[[Lab], Result]]] = {
    "X1": x01_kill_points.run,
    "X2": x02_worker_killed.run,
    "X3": x03_zombies.run,
    "X4": x04_broker_restarts.run,
    "X5": x05_database_restarts.run,
    "X6": x06_relay_dies.run,
    "X7": x07_broker_forgets.run,
    "X8": x08_memory_alarm.run,
    "X9": x09_poison.run,
    "X10": x10_cancel.run,
    "X11": x11_same_work_at_once.run,
    "X12": x12_slow_steps_and_rolling_restarts.run,
    "SM": sm_state_machine.run,
}


def conduct(lab: Lab, name: str) -> Result:
    """Run one experiment, with nothing armed by an earlier one.

    A process that gave up by itself is a violation too, and so is an experiment that could not be ended.
    """
    kill_points.disarm(lab.kill_points)
    before, began = lab.crashes(), time.monotonic()
    try:
        result = EXPERIMENTS[name](lab)
    except Exception as error:  # noqa: BLE001 - the others are run all the same
        traceback.print_exc()
        result = Result(name, "could not be ended", [], [Violation("unfinished", type(error).__name__, str(error))])
    crashes = [Violation("crash", part, "ended by itself; see its log") for part in lab.crashes() - before]
    seconds = time.monotonic() - began
    return dataclasses.replace(result, violations=[*result.violations, *crashes], seconds=seconds)
