"""X7: the broker comes back empty while documents are queued."""

from __future__ import annotations

from tests.chaos.lab import Lab
from tests.chaos.results import Result, exactly, measured
from tests.chaos.verify import verify
from tests.chaos.workers import until


def run(lab: Lab) -> Result:
    customer = lab.customer()
    number = lab.choose(ci=24, long=300)
    with lab.platform.away("worker"):
        customer.upload_many(number)
        until(lambda: lab.unpublished(customer) < number, 30, "the dispatcher published what the queue has room for")
        lost = sum(lab.broker.waiting().values())
        lab.broker.forget_everything()
    seconds = lab.settle(customer)
    return Result(
        "X7",
        f"the broker forgets everything, {number} documents queued",
        counts=[exactly("ready", lab.ready(customer), "documents", number)],
        times=[measured("messages lost with the broker", lost, ""), measured("until all were ready", seconds, "s")],
        violations=verify(lab, customer),
    )
