"""X1: the process that does the work is killed at every point of a document's way."""

from __future__ import annotations

from benchmarks.report import at_most
from sluice.kill_points import KillPoint, arm, armed
from tests.chaos import texts
from tests.chaos.arming import ON_THE_WAY
from tests.chaos.lab import Customer, Lab, Upload
from tests.chaos.results import Result, exactly
from tests.chaos.verify import verify
from tests.e2e.faults import frozen

# A child that takes a dead one's place loads what steps need: about two seconds of a core for each kill.
_SECONDS = 5_400
# One more than a part holds, so that the document is handed out in two.
_CHUNKS_OF_A_LONG_ONE = 257


def run(lab: Lab) -> Result:
    customer = lab.customer()
    short, long = lab.choose(ci=(10, 1), long=(192, 8))
    # Frozen, not stopped: it may be killed before it would count as started again.
    with frozen(lab.platform, "dispatcher"):
        uploads = customer.upload_many(short)
        uploads += [customer.upload(texts.long(_CHUNKS_OF_A_LONG_ONE)) for _ in range(long)]
        points = [point for number, upload in enumerate(uploads) for point in _arm(lab, customer, upload, number)]
    seconds = lab.settle(customer, _SECONDS)
    left = armed(lab.kill_points)
    number = short + long
    return Result(
        "X1",
        f"kill -9 at {len(KillPoint)} points of the way of {number} documents",
        counts=[
            exactly("kills", len(points) - len(left), "", len(points)),
            exactly("ready", lab.ready(customer), "documents", number),
        ],
        times=[at_most("until all were ready", seconds, "s", _SECONDS)],
        violations=verify(lab, customer),
    )


def _arm(lab: Lab, customer: Customer, upload: Upload, number: int) -> list[KillPoint]:
    """Kill whoever has the document at every point, or, in the short profile, at one."""
    points = lab.choose(ci=(ON_THE_WAY[number % len(ON_THE_WAY)],), long=ON_THE_WAY)
    for point in points:
        arm(lab.kill_points, point, upload.document_id)
    # The relay is one process, and its restart takes seconds: in the short profile it dies for some of the documents.
    if number % lab.choose(ci=5, long=1) == 0:
        query = "SELECT id FROM job_steps WHERE job_id = %(job)s"
        arm(lab.kill_points, KillPoint.RELAY_AFTER_PUBLISH_BEFORE_MARK, lab.database.value(query, job=upload.job_id))
        points = (*points, KillPoint.RELAY_AFTER_PUBLISH_BEFORE_MARK)
    return list(points)
