"""X2: of two workers, one is killed every ten seconds."""

from __future__ import annotations

import math
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from itertools import cycle

from benchmarks.report import at_least, at_most
from tests.chaos.lab import LEASE_SECONDS, Customer, Lab
from tests.chaos.results import Result, exactly, measured, percentile
from tests.chaos.verify import verify
from tests.chaos.workers import WORKER, Companion, running

_BETWEEN_KILLS = 10.0


def run(lab: Lab) -> Result:
    number, lasting = lab.choose(ci=(20, 15), long=(500, 120))
    second = lab.companion("second-worker", WORKER)
    with running(second):
        lab.broker.wait_consumed()
        # What is embedded first pays for a model that has not been used yet.
        _measured(lab, lab.customer(), 10)
        calm = _measured(lab, lab.customer(), number)
        # Enough for all of the kills, however fast the machine.
        number = max(number, math.ceil(calm * lasting))
        customer = lab.customer()
        customer.upload_many(number)
        began = time.monotonic()
        kills = _kill_in_turn(lab, second, lasting, customer)
        done, elapsed = lab.ready(customer), time.monotonic() - began
        lab.settle(customer)
        rate = done / elapsed if done < number else number / (time.monotonic() - began)
    gaps = _gaps(lab, customer, kills)
    return Result(
        "X2",
        f"kill -9 of one of two workers every {_BETWEEN_KILLS:.0f} s for {lasting} s, {number} documents",
        counts=[exactly("ready", lab.ready(customer), "documents", number), measured("kills", len(kills), "")],
        times=[
            at_most("kill to the step's next attempt, p95", percentile(gaps, 95), "s", 10),
            at_least("throughput, of a calm run's", rate / calm, "", 0.6),
            measured("steps that were running when their worker died", len(gaps), ""),
            measured("throughput of the calm run", calm, "documents/s"),
            measured("lease", LEASE_SECONDS, "s"),
        ],
        violations=verify(lab, customer),
    )


def _measured(lab: Lab, customer: Customer, number: int) -> float:
    customer.upload_many(number)
    return number / lab.settle(customer)


def _kill_in_turn(lab: Lab, second: Companion, lasting: float, customer: Customer) -> list[datetime]:
    """Kill the platform's worker and the second one in turn; when each died, by PostgreSQL's clock, which is ours."""
    kills = []
    ends = time.monotonic() + lasting
    for turn in cycle((0, 1)):
        kills.append(datetime.now(UTC))
        if turn:
            second.kill()
            second.start()
        else:
            (worker, *_) = lab.platform.pids("worker")
            os.kill(worker, signal.SIGKILL)
        next_kill = time.monotonic() + _BETWEEN_KILLS
        while time.monotonic() < next_kill:
            if time.monotonic() >= ends or lab.ready(customer) == len(customer.uploads):
                return kills
            time.sleep(0.2)
    return kills


def _gaps(lab: Lab, customer: Customer, kills: list[datetime]) -> list[float]:
    """Seconds from each kill to the next attempt of each step that it interrupted."""
    attempts = lab.attempts(customer)
    following = {(one.step_id, one.attempt): one.started_at for one in attempts}
    gaps = []
    for lost in (one for one in attempts if one.outcome == "lost"):
        again = following.get((lost.step_id, lost.attempt + 1))
        killed = [kill for kill in kills if again and lost.started_at - timedelta(seconds=1) <= kill <= again]
        if again and killed:
            gaps.append((again - killed[0]).total_seconds())
    return gaps
