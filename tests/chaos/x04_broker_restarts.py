"""X4: RabbitMQ restarts and closes every connection while documents are read."""

from __future__ import annotations

import time

from benchmarks.report import at_most
from tests.chaos.lab import Lab
from tests.chaos.results import Result, measured
from tests.chaos.verify import verify


def run(lab: Lab) -> Result:
    customer = lab.customer()
    number, restarts, closings = lab.choose(ci=(24, 2, 3), long=(300, 5, 10))
    pause = lab.choose(ci=1.0, long=4.0)
    customer.upload_many(number)
    silences = []
    for _ in range(restarts):
        time.sleep(pause)
        lab.broker.restart()
        silences.append(lab.broker.wait_consumed())
    for _ in range(closings):
        time.sleep(pause)
        lab.broker.close_connections()
        silences.append(lab.broker.wait_consumed())
    seconds = lab.settle(customer)
    runs = len(lab.attempts(customer))
    return Result(
        "X4",
        f"the broker restarts {restarts} times and closes all connections {closings} times, {number} documents",
        counts=[],
        times=[
            at_most("runs for each job", runs / number, "", 1.15),
            at_most("until a worker listened again, worst", max(silences), "s", 15),
            measured("until all were ready", seconds, "s"),
        ],
        violations=verify(lab, customer),
    )
