"""X10: jobs are canceled at random times, some of them while they end or are tried again."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import httpx

from benchmarks.report import at_most
from tests.chaos import texts
from tests.chaos.lab import Customer, Lab, Upload
from tests.chaos.results import Result, exactly, measured, percentile
from tests.chaos.verify import verify
from tests.e2e.api import Json

_AT_ONCE: Final = 4
_SERVER_ERROR: Final = httpx.codes.INTERNAL_SERVER_ERROR
_ENDS: Final = frozenset({"canceled", "ready"})


@dataclass(frozen=True)
class Canceled:
    """A request to cancel a job, and its answer."""

    upload: Upload
    state: str
    status: int
    asked_at: float
    seconds: float


def run(lab: Lab) -> Result:
    # About as long as the work takes, so that some are waiting, some are at work and some are done.
    number, spread = lab.choose(ci=(24, 3.0), long=(200, 20.0))
    customer = lab.customer()
    marks = {texts.new_mark(): None for _ in range(number)}
    with lab.platform.away("dispatcher"):
        uploads = {mark: customer.upload(texts.short(mark)) for mark in marks}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(
            pool.map(lambda one: _cancel_some_time(customer, *one), _moments(list(uploads.values()), spread))
        )
    # Those that are canceled already are tried again, and every other one of them canceled again.
    ended = [answer.upload for answer in answers if answer.state == "canceled"]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        again = [
            one for found in pool.map(lambda one: _retry_and_cancel(customer, *one), enumerate(ended)) for one in found
        ]
    retried = {upload.job_id for upload in ended}
    accepted = {one.upload.job_id for one in answers if one.status < httpx.codes.BAD_REQUEST} - retried
    accepted |= {one.upload.job_id for one in again if one.status < httpx.codes.BAD_REQUEST}
    lab.settle(customer)
    jobs = {upload.job_id: customer.api.job(str(upload.job_id)) for upload in customer.uploads}
    canceled = {mark for mark, upload in uploads.items() if jobs[upload.job_id]["state"] == "canceled"}
    waiting, pressed = ([one.seconds * 1000 for one in some if one.state == "canceled"] for some in (answers, again))
    return Result(
        "X10",
        f"{number} jobs canceled at random times, some tried again",
        counts=[
            exactly("documents neither ready nor canceled", _elsewhere(jobs), "", 0),
            exactly(
                "canceled documents that search finds", _found(customer, uploads, canceled), f"of {len(canceled)}", 0
            ),
            exactly("ready although a cancelation was accepted", _ready(jobs, accepted), f"of {len(accepted)}", 0),
            exactly("answers of 5xx", sum(one.status >= _SERVER_ERROR for one in (*answers, *again)), "", 0),
            measured("canceled in the end", len(canceled), "documents"),
            measured("canceled while they waited", len(waiting) + len(pressed), ""),
            measured("canceled while they ran", sum(one.state == "running" for one in answers), ""),
            measured(f"cancel by {_AT_ONCE} who do nothing else, p95", percentile(pressed, 95), "ms"),
        ],
        times=[
            at_most("cancel of a queued job, p95", percentile(waiting, 95), "ms", 100),
            at_most("cancel of a running job until it had ended, p95", percentile(_stops(lab, answers), 95), "s", 5),
        ],
        violations=verify(lab, customer, ends=_ENDS),
    )


def _moments(uploads: list[Upload], spread: float) -> list[tuple[Upload, float]]:
    """Each upload with the moment of its cancelation, in that order."""
    now = time.monotonic()
    order = random.sample(uploads, len(uploads))
    return [(upload, now + spread * n / len(order)) for n, upload in enumerate(order)]


def _cancel_some_time(customer: Customer, upload: Upload, moment: float) -> Canceled:
    time.sleep(max(moment - time.monotonic(), 0))
    return _cancel(customer, upload)


def _cancel(customer: Customer, upload: Upload) -> Canceled:
    asked, began = time.time(), time.monotonic()
    answer = customer.api.http.post(f"/api/admin/jobs/{upload.job_id}:cancel")
    return Canceled(upload, answer.json().get("state", ""), answer.status_code, asked, time.monotonic() - began)


def _retry_and_cancel(customer: Customer, number: int, upload: Upload) -> list[Canceled]:
    answer = customer.api.http.post(f"/api/admin/jobs/{upload.job_id}:retry")
    assert not answer.is_server_error, answer.text
    return [_cancel(customer, upload)] if number % 2 else []


def _ready(jobs: dict[UUID, Json], chosen: set[UUID]) -> int:
    return sum(jobs[job_id]["state"] == "ready" for job_id in chosen)


def _elsewhere(jobs: dict[UUID, Json]) -> int:
    return sum(job["state"] not in _ENDS for job in jobs.values())


def _found(customer: Customer, uploads: dict[str, Upload], marks: set[str]) -> int:
    """How many of these documents a search for their own word finds."""
    return sum(any(mark in text for text in customer.api.found(customer.source_id, f"keeper {mark}")) for mark in marks)


def _stops(lab: Lab, answers: list[Canceled]) -> list[float]:
    """Seconds from asking to the end, of the jobs that ran when they were asked to stop."""
    running = [one for one in answers if one.state == "running"]
    query = "SELECT extract(epoch FROM finished_at) FROM jobs WHERE id = %(job)s"
    return [float(lab.database.value(query, job=one.upload.job_id)) - one.asked_at for one in running]
