"""X5: PostgreSQL restarts without a checkpoint, and connections are cut, while documents are read."""

from __future__ import annotations

import time

from benchmarks.report import at_least
from tests.chaos.lab import Customer, Lab
from tests.chaos.results import Result, exactly, measured
from tests.chaos.verify import verify

_CUT_EVERY_SECONDS = 0.5


def run(lab: Lab) -> Result:
    number, restarts, cutting = lab.choose(ci=(16, 2, 6), long=(200, 5, 60))
    pause = lab.choose(ci=1.0, long=5.0)
    calm = _throughput(lab, lab.customer(), number)
    customer = lab.customer()
    customer.upload_many(number)
    for _ in range(restarts):
        time.sleep(pause)
        lab.database.restart_immediately()
    lab.settle(customer)
    cut = lab.customer()
    cut.upload_many(number)
    with lab.database.cutting_connections(_CUT_EVERY_SECONDS):
        time.sleep(cutting)
    lab.settle(cut)
    after = _throughput(lab, lab.customer(), number)
    blamed = lab.blamed_attempts(customer) + lab.blamed_attempts(cut)
    return Result(
        "X5",
        f"PostgreSQL restarts {restarts} times, then loses two connections a second for {cutting} s",
        counts=[
            exactly("attempts blamed on a document", blamed, "", 0),
            exactly("ready", lab.ready(customer) + lab.ready(cut), "documents", 2 * number),
        ],
        times=[
            at_least("throughput afterwards, of what it was before", after / calm, "", 0.95),
            measured("throughput before", calm, "documents/s"),
        ],
        violations=[*verify(lab, customer), *verify(lab, cut)],
    )


def _throughput(lab: Lab, customer: Customer, number: int) -> float:
    """Documents a second, of so many that are queued at once."""
    customer.upload_many(number)
    return number / lab.settle(customer)
