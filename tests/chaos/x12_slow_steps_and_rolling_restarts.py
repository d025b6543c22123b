"""X12: a step takes longer than the broker waits for it; then two workers are restarted in turn, politely."""

from __future__ import annotations

import time
from itertools import cycle
from typing import Final

from benchmarks.report import at_least, at_most
from sluice.kill_points import KillPoint, arm
from tests.chaos.lab import Customer, Lab
from tests.chaos.results import Result, exactly, measured
from tests.chaos.verify import verify
from tests.chaos.workers import WORKER, Companion, running

# As sluice/broker.py sets it, and what the pass line adds.
_SOFT_SHUTDOWN: Final = 25
_LONGEST_EXIT: Final = _SOFT_SHUTDOWN + 2


def run(lab: Lab) -> Result:
    impatience, step = lab.choose(ci=(12, 20), long=(5, 25))
    restarts, pause, number = lab.choose(ci=(2, 2.0, 12), long=(20, 15.0, 300))
    (before, *_) = lab.platform.pids("worker")
    slow = _outlast_the_broker(lab, impatience, step)
    alive = int(before in lab.platform.pids("worker"))
    rolling = lab.customer()
    second = lab.companion("second-worker", WORKER)
    with running(second):
        rolling.upload_many(number)
        exits = _restart_in_turn(lab, second, restarts, pause)
        lab.settle(rolling)
    runs = len(lab.attempts(rolling))
    return Result(
        "X12",
        f"a step of {step} s under a consumer timeout of {impatience} s; {restarts} rolling restarts of two workers",
        counts=[
            exactly("workers that lived through the timeout", alive, "", 1),
            at_least("attempts at the slow step", len(lab.attempts(slow)), "", 2),
            exactly("slow document ready", lab.ready(slow), "", 1),
            exactly("ready after the rolling restarts", lab.ready(rolling), "documents", number),
        ],
        times=[
            at_most("SIGTERM to exit, worst", max(exits), "s", _LONGEST_EXIT),
            measured("runs for each job under rolling restarts", runs / number, ""),
        ],
        violations=[*verify(lab, slow), *verify(lab, rolling)],
    )


def _outlast_the_broker(lab: Lab, impatience: int, step: int) -> Customer:
    """A customer with one document, whose first attempt takes longer than the broker waits for an answer."""
    customer = lab.customer()
    with lab.broker.impatient(impatience * 1000):
        lab.broker.wait_consumed()
        with lab.platform.away("dispatcher"):
            upload = customer.upload()
            arm(lab.kill_points, KillPoint.AFTER_EXTRACT, upload.document_id, f"sleep {step}")
        lab.settle(customer)
    lab.broker.wait_consumed()
    return customer


def _restart_in_turn(lab: Lab, second: Companion, restarts: int, pause: float) -> list[float]:
    """Restart the two workers in turn; the seconds that each took to end."""
    exits = []
    for _, turn in zip(range(restarts), cycle((0, 1))):
        time.sleep(pause)
        began = time.monotonic()
        if turn:
            exits.append(second.terminate(2 * _LONGEST_EXIT))
            second.start()
            second.wait_ready()
        else:
            lab.platform.stop("worker")
            exits.append(time.monotonic() - began)
            lab.platform.start("worker")
    return exits
