"""X6: the relay dies between publishing and writing that down; then three relays work at once."""

from __future__ import annotations

from benchmarks.report import at_most
from sluice.kill_points import KillPoint, arm
from tests.chaos.arming import is_armed
from tests.chaos.lab import PATIENCE_SECONDS, Customer, Lab
from tests.chaos.results import Result, exactly
from tests.chaos.verify import verify
from tests.chaos.workers import DISPATCHER, running, until

_POINT = KillPoint.RELAY_AFTER_PUBLISH_BEFORE_MARK
_TOGETHER = 6


def run(lab: Lab) -> Result:
    deaths, together = lab.choose(ci=(5, 6), long=(100, 48))
    customer = lab.customer()
    for _ in range(deaths):
        _die_once(lab, customer)
    lab.settle(customer)
    shared = lab.customer()
    with running(*(lab.companion(f"relay-{n}", DISPATCHER) for n in (2, 3))):
        # Fewer at a time than the queue has room for: what waits for room is not stuck.
        for _ in range(together // _TOGETHER):
            shared.upload_many(_TOGETHER)
            lab.settle(shared)
    effects = sum(one.outcome == "ready" for one in (*lab.attempts(customer), *lab.attempts(shared)))
    return Result(
        "X6",
        f"the relay dies {deaths} times between publishing and marking; then three relays at once",
        counts=[
            exactly("steps with an effect", effects, "", deaths + together),
            exactly("messages never published", lab.unpublished(customer) + lab.unpublished(shared), "", 0),
        ],
        times=[
            at_most("message due to published, worst, with relays dying", _longest_wait(lab, customer), "s", 5),
            at_most("message due to published, worst, with three relays", _longest_wait(lab, shared), "s", 5),
        ],
        violations=[*verify(lab, customer), *verify(lab, shared)],
    )


def _die_once(lab: Lab, customer: Customer) -> None:
    arm(lab.kill_points, _POINT)
    customer.upload()
    until(lambda: not is_armed(lab.kill_points, _POINT, "any"), PATIENCE_SECONDS, "the relay was killed")
    # It comes back before it dies again: else it would die of the same message each time.
    until(lambda: lab.unpublished(customer) == 0, PATIENCE_SECONDS, "what was not marked was published again")


def _longest_wait(lab: Lab, customer: Customer) -> float:
    return float(
        lab.database.value(
            "SELECT max(extract(epoch FROM published_at - available_at)) FROM outbox WHERE tenant_id = %(tenant)s",
            tenant=customer.tenant_id,
        )
    )
