"""What the job engine costs for each message, beside plain Celery on the same broker with the same workers.

Plain Celery may lose and double work; ours claims and ends each step in PostgreSQL (late acknowledgement, quorum queue,
two commits). Throughput is the slope between 10 % and 95 % of a queue that was filled before the worker came. Latency
is measured apart, at a fixed rate of arrivals that leaves the machine idle, from the commit (ours) or the publishing
(plain) to the first line of the work. Pairs are measured in turns; the figure is the median of the pairs' ratios.
A pair is rejected when the halves of plain Celery's run differ by more than a fifth: the machine did something else.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import psycopg
from sqlalchemy import text

from benchmarks.queue_worker import PLAIN_QUEUE, plain_app
from benchmarks.report import Figure, at_least, at_most, median_ratio, publish
from benchmarks.subject import ROOT, Tenant
from infra.embedded.platform import Platform
from sluice.broker import URGENT
from sluice.db.session import Sessions, create_sessions, tenant_session
from sluice.jobs import repository
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import JobState
from sluice.settings import BrokerSettings, DatabaseSettings

PAIRS = 5
MOST_PAIRS = 10
UNEVEN = 0.2
MESSAGES = 1500
ARRIVALS = 400
PER_SECOND = 50
CONCURRENCY = 2
_PATIENCE = 180.0


@dataclass(frozen=True)
class Drained:
    """One queue worked off: messages a second, and the workers' processor seconds for a thousand of them."""

    per_second: float
    processor_seconds: float
    # By how much of the faster half the slower one was slower.
    uneven: float


def run(platform: Platform) -> None:
    """Measure, print, write."""
    side = Side(platform)
    pairs: list[tuple[Drained, Drained]] = []
    our_waits, plain_waits = [], []
    with platform.away("worker"):
        before = side.postgres()
        with platform.away("dispatcher"), generous_dispatcher(side.variables):
            while sum(map(is_even, pairs)) < PAIRS and len(pairs) < MOST_PAIRS:
                plain = drained("plain", side.variables, lambda: side.publish_plain(MESSAGES))
                pairs.append((drained("ours", side.variables, lambda: side.submit(MESSAGES)), plain))
                print(f"  pair {len(pairs)}, {'good' if is_even(pairs[-1]) else 'rejected'}; {PAIRS} are wanted")
        commits, written = (b - a for a, b in zip(before, side.postgres(), strict=True))
        for _ in range(3):
            plain_waits.append(waits("plain", side.variables, side.publish_plain))
            our_waits.append(waits("ours", side.variables, side.submit))
    if not any(map(is_even, pairs)):
        raise RuntimeError("This machine does something else all the time: measure when it is idle.")
    jobs = len(pairs) * MESSAGES
    _publish(pairs, our_waits, plain_waits, commits / jobs, written / jobs)


def is_even(pair: tuple[Drained, Drained]) -> bool:
    """Whether the machine was as fast in one half of plain Celery's run as in the other."""
    return pair[1].uneven <= UNEVEN


def _publish(
    pairs: list[tuple[Drained, Drained]],
    our_waits: list[list[float]],
    plain_waits: list[list[float]],
    commits: float,
    written: float,
) -> None:
    ours, plain = zip(*filter(is_even, pairs), strict=True)
    rates = [each.per_second for each in ours], [each.per_second for each in plain]
    added = statistics.median(CONCURRENCY * 1000 * (1 / a - 1 / b) for a, b in zip(*rates, strict=True))
    apart = [percentile(a, 95) - percentile(b, 95) for a, b in zip(our_waits, plain_waits, strict=True)]
    publish(
        "queue",
        [
            Figure("plain Celery", statistics.median(rates[1]), "messages/s"),
            Figure("ours", statistics.median(rates[0]), "messages/s"),
            at_least("ours / plain", median_ratio(*rates), "", 0.25),
            at_most("added for each message", added, "ms", 3),
            Figure("start after publishing, plain, p50", percentile([*chain(*plain_waits)], 50), "ms"),
            Figure("start after publishing, plain, p95", percentile([*chain(*plain_waits)], 95), "ms"),
            Figure("start after commit, ours, p50", percentile([*chain(*our_waits)], 50), "ms"),
            Figure("start after commit, ours, p95", percentile([*chain(*our_waits)], 95), "ms"),
            at_most("p95 more than plain", statistics.median(apart), "ms", 25),
            Figure("PostgreSQL commits for each job, its submission included", commits, ""),
            Figure("PostgreSQL write-ahead log for each job", written / 1024, "KiB"),
            Figure("worker's processor time, ours", statistics.median(e.processor_seconds for e in ours), "s/1000"),
            Figure("worker's processor time, plain", statistics.median(e.processor_seconds for e in plain), "s/1000"),
        ],
        notes=f"{MESSAGES} messages, {CONCURRENCY} processes, {len(ours)} pairs of {len(pairs)}; ratios "
        + ", ".join(f"{a / b:.2f}" for a, b in zip(*rates, strict=True)),
    )


class Side:
    """Where messages come from: PostgreSQL and the dispatcher, or straight from Celery."""

    def __init__(self, platform: Platform) -> None:
        tenant = Tenant(platform)
        self.variables = tenant.variables
        self._tenant_id = UUID(tenant.id)
        self._sessions: Sessions = create_sessions(DatabaseSettings(url=self.variables["SLUICE_DATABASE_URL"]))
        self._plain = plain_app(BrokerSettings(url=self.variables["SLUICE_BROKER_URL"]))

    def publish_plain(self, number: int) -> None:
        """So many messages, at once."""
        with self._plain.connection_for_write() as connection:
            for _ in range(number):
                self._plain.send_task("bench.nothing", args=[time.time()], queue=PLAIN_QUEUE, connection=connection)

    def submit(self, number: int) -> None:
        """So many jobs of one step; returns once the dispatcher has published them all, when they are many."""
        jobs = []
        with tenant_session(self._sessions, self._tenant_id) as session:
            for _ in range(number):
                job = Job(kind="bench", state=JobState.QUEUED, options={"made": time.time()})
                step = JobStep(step="nothing", queue=URGENT, max_attempts=3, idempotency_key=uuid4().bytes * 2)
                jobs.append(repository.submit(session, job, step).id)
        if number > 1:
            self._take_statistics()
            self._until_published(jobs[-1])

    def _take_statistics(self) -> None:
        """As autovacuum does within a minute; until then, on a new database, PostgreSQL picks poor indexes."""
        owner = self.variables["SLUICE_DATABASE_OWNER_URL"].replace("+psycopg", "", 1)
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("ANALYZE jobs, job_steps, job_attempts, outbox")

    def _until_published(self, job_id: UUID) -> None:
        waiting = text("SELECT dispatched_at IS NULL FROM job_steps WHERE job_id = :job")
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with tenant_session(self._sessions, self._tenant_id) as session:
                if not session.scalar(waiting, {"job": job_id}):
                    return
            time.sleep(0.2)
        raise TimeoutError("The dispatcher did not publish the backlog.")

    def postgres(self) -> tuple[float, float]:
        """Commits so far, and bytes of write-ahead log."""
        time.sleep(1.5)  # Statistics of a connection are counted when it has been idle for a second.
        with tenant_session(self._sessions, self._tenant_id) as session:
            commits = session.scalar(
                text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
            )
            written = session.scalar(text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))
        return float(commits or 0), float(written or 0)


def drained(variant: str, variables: dict[str, str], fill: Callable[[], None]) -> Drained:
    """Fill the queue, let a worker come, and see how fast it empties it."""
    fill()
    with worker(variant, variables) as (completions, process):
        lines = wait_for(completions, MESSAGES)
        seconds = sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])
    begin, end = MESSAGES // 10, MESSAGES * 95 // 100
    first, half, last = (lines[number][0] for number in (begin, (begin + end) // 2, end))
    quick, slow = sorted([half - first, last - half])
    return Drained((end - begin) / (last - first), seconds * 1000 / MESSAGES, 1 - quick / slow)


def waits(variant: str, variables: dict[str, str], send: Callable[[int], None]) -> list[float]:
    """Milliseconds from sending to starting, at a rate that leaves the machine idle."""
    with worker(variant, variables) as (completions, _):
        send(1)
        send(1)
        wait_for(completions, 2)
        due = time.monotonic()
        for _ in range(ARRIVALS):
            due += 1 / PER_SECOND
            time.sleep(max(due - time.monotonic(), 0))
            send(1)
        return [(began - made) * 1000 for began, made in wait_for(completions, ARRIVALS + 2)[2:]]


@contextmanager
def generous_dispatcher(variables: dict[str, str]) -> Iterator[None]:
    """A dispatcher that lets the broker have the whole backlog at once, so that what is measured is the worker."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.workers.dispatcher"],
        cwd=ROOT, env=os.environ | variables | {"SLUICE_JOBS_IN_FLIGHT": str(MESSAGES)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def worker(variant: str, variables: dict[str, str]) -> Iterator[tuple[Path, psutil.Process]]:
    """A worker of two processes, and the file in which it notes what it has done."""
    with tempfile.TemporaryDirectory() as folder:
        completions = Path(folder) / "completions"
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.queue_worker", variant, str(completions),
                 f"--concurrency={CONCURRENCY}"],
                cwd=ROOT, env=os.environ | variables, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield completions, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_for(completions: Path, number: int) -> list[tuple[float, float]]:
    """When each piece of work began and when it was made, once there are so many."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        lines = completions.read_text().splitlines() if completions.exists() else []
        if len(lines) >= number:
            pairs = [tuple(map(float, line.split())) for line in lines]
            return sorted((began, made) for began, made in pairs)
        time.sleep(0.1)
    raise TimeoutError(f"The worker has not done {number} messages.")


def percentile(values: list[float], percent: int) -> float:
    """The value that so many of a hundred do not exceed."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]
