"""X3: a worker stands still past its lease, the next attempt ends, and the first one wakes up."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil

from benchmarks.report import at_least
from infra.embedded.platform import Platform
from sluice.kill_points import KillPoint, arm
from tests.chaos.arming import is_armed
from tests.chaos.lab import PATIENCE_SECONDS, Customer, Lab
from tests.chaos.results import Result, exactly
from tests.chaos.verify import Rows, read_rows, verify
from tests.chaos.workers import WORKER, running, until
from tests.e2e.running import counted

# Both children of the platform's worker can be asleep: a second worker makes the next attempts.
_AT_ONCE = 2


def run(lab: Lab) -> Result:
    points = lab.choose(
        ci=(KillPoint.AFTER_EMBED, KillPoint.AFTER_UPSERT_BEFORE_COMMIT),
        long=(
            KillPoint.AFTER_CLAIM,
            KillPoint.AFTER_EXTRACT,
            KillPoint.AFTER_CHUNK,
            KillPoint.AFTER_EMBED,
            KillPoint.IN_EMBED_PART,
            KillPoint.AFTER_UPSERT_BEFORE_COMMIT,
        ),
    )
    customer = lab.customer()
    metrics = next(part.address for part in lab.platform.status() if part.name == "worker").removesuffix("/metrics")
    before = counted(metrics, "sluice_fence_rejections_total")
    written = sum(_wake_zombies(lab, customer, points[n : n + _AT_ONCE]) for n in range(0, len(points), _AT_ONCE))
    rejections = counted(metrics, "sluice_fence_rejections_total") - before
    return Result(
        "X3",
        f"{len(points)} workers asleep past their lease wake up when the next attempt has ended",
        counts=[
            exactly("tables with rows that a zombie changed", written, "", 0),
            at_least("writes refused by the fence", rejections, "", 1),
            exactly("ready", lab.ready(customer), "documents", len(points)),
        ],
        violations=verify(lab, customer),
    )


def _wake_zombies(lab: Lab, customer: Customer, points: tuple[KillPoint, ...]) -> int:
    """Put a worker to sleep at each point, and wake them all too late; how many tables they changed."""
    second = lab.companion("second-worker", WORKER)
    with lab.platform.away("dispatcher"):
        uploads = customer.upload_many(len(points))
        for upload, point in zip(uploads, points, strict=True):
            arm(lab.kill_points, point, upload.document_id, "STOP")
    asleep_at = list(zip(uploads, points, strict=True))
    until(
        lambda: not any(is_armed(lab.kill_points, point, upload.document_id) for upload, point in asleep_at),
        PATIENCE_SECONDS,
        "the workers fell asleep",
    )
    with running(second):
        number = len(customer.uploads)
        until(lambda: lab.ready(customer) == number, PATIENCE_SECONDS, "the next attempts ended")
        before = read_rows(lab, customer.tenant_id)
        zombies = _stopped(lab.platform)
        for zombie in zombies:
            os.kill(zombie, signal.SIGCONT)
        until(lambda: all(_is_idle(zombie) for zombie in zombies), PATIENCE_SECONDS, "the zombies gave up")
        lab.settle(customer)
        after = read_rows(lab, customer.tenant_id)
    return _changed(before, after)


def _stopped(platform: Platform) -> list[int]:
    return [pid for pid in platform.pids("worker") if psutil.Process(pid).status() == psutil.STATUS_STOPPED]


def _is_idle(pid: int) -> bool:
    """Whether the process has nothing left to do, or is gone: it waits for its parent, with no child of its own."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        quiet = process.cpu_percent(interval=1.0) < 5
        return quiet and process.status() == psutil.STATUS_SLEEPING and not process.children()
    return True


def _changed(before: Rows, after: Rows) -> int:
    tables = zip(vars(before).values(), vars(after).values(), strict=True)
    return sum(sorted(map(repr, old)) != sorted(map(repr, new)) for old, new in tables)
