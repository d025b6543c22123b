"""X4: RabbitMQ restarts and closes every connection while documents are read."""

from __future__ import annotations

import time

from benchmarks.report import at_most
from tests.chaos.lab import Lab
from tests.chaos.results import Result, measured
from tests.chaos.verify import verify

# Long enough to begin with what was just uploaded, not to end it.
_PAUSE_SECONDS = 1.0


def run(lab: Lab) -> Result:
    customer = lab.customer()
    number, restarts, closings = lab.choose(ci=(25, 2, 3), long=(300, 5, 10))
    faults = [lab.broker.restart] * restarts + [lab.broker.close_connections] * closings
    silences = []
    for fault in faults:
        customer.upload_many(number // len(faults))
        time.sleep(_PAUSE_SECONDS)
        fault()
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
