"""X8: the broker is short of memory and takes no messages, while people go on uploading."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx

from benchmarks.report import at_most
from tests.chaos import texts
from tests.chaos.lab import Customer, Lab
from tests.chaos.results import Result, exactly, measured, percentile
from tests.chaos.verify import verify
from tests.chaos.workers import until
from tests.e2e.faults import frozen

_AT_ONCE = 2


def run(lab: Lab) -> Result:
    number, lasting = lab.choose(ci=(16, 8), long=(200, 30))
    # No work comes to the workers in either run, so that the alarm is all that is different.
    with frozen(lab.platform, "dispatcher"):
        calm = _uploads(lab, number)
    customer = calm[0]
    lab.settle(customer)
    with lab.broker.memory_alarm():
        began = time.monotonic()
        alarmed = _uploads(lab, number)
        time.sleep(max(began + lasting - time.monotonic(), 0))
    over = datetime.now(UTC)
    until(lambda: _published_since(lab, alarmed[0], over) is not None, 60, "the relay published again")
    first = _published_since(lab, alarmed[0], over)
    assert first is not None
    lab.settle(alarmed[0])
    p99 = {name: percentile(seconds, 99) * 1000 for name, (_, seconds, _) in (("calm", calm), ("alarm", alarmed))}
    return Result(
        "X8",
        f"memory alarm for {lasting} s while {number} documents are uploaded",
        counts=[
            exactly("uploads refused", calm[2] + alarmed[2], f"of {2 * number}", 0),
            exactly("ready", lab.ready(alarmed[0]), "documents", number),
        ],
        times=[
            at_most("p99 of an upload, of a calm one's", p99["alarm"] / p99["calm"], "", 1.2),
            at_most("alarm over to relay publishing", (first - over).total_seconds(), "s", 20),
            measured("p99 of an upload, calm", p99["calm"], "ms"),
            measured("p99 of an upload, under the alarm", p99["alarm"], "ms"),
        ],
        violations=[*verify(lab, customer), *verify(lab, alarmed[0])],
    )


def _uploads(lab: Lab, number: int) -> tuple[Customer, list[float], int]:
    """A new customer's uploads, the seconds of each, and how many were not accepted."""
    customer = lab.customer()

    def one(_: int) -> float | None:
        began = time.monotonic()
        try:
            customer.upload(texts.short())
        except (AssertionError, httpx.HTTPError):
            return None
        return time.monotonic() - began

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        seconds = list(pool.map(one, range(number)))
    accepted = [one for one in seconds if one is not None]
    return customer, accepted, number - len(accepted)


def _published_since(lab: Lab, customer: Customer, moment: datetime) -> datetime | None:
    found: datetime | None = lab.database.value(
        "SELECT min(published_at) FROM outbox WHERE tenant_id = %(tenant)s AND published_at > %(moment)s",
        tenant=customer.tenant_id,
        moment=moment,
    )
    return found
