"""X11: many clients upload the same files at once, and the broker delivers messages twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx

from sluice.broker import INGEST
from sluice.wire.messages import RunStep
from tests.chaos import texts
from tests.chaos.lab import Customer, Lab, Upload
from tests.chaos.results import Result, exactly, measured
from tests.chaos.verify import verify

# One message in so many is delivered twice.
_TWICE = 10


def run(lab: Lab) -> Result:
    customer = lab.customer()
    threads, number = lab.choose(ci=(8, 10), long=(50, 100))
    files = {f"{uuid4().hex}.txt": texts.short() for _ in range(number)}
    with ThreadPoolExecutor(threads) as pool:
        each = [pool.submit(_upload_all, customer, files) for _ in range(threads)]
        answers = [answer for one in each for answer in one.result()]
    repeated = _deliver_again(lab, customer)
    failed = sum(answer.is_server_error for _, answer in answers)
    jobs = {(name, answer.json()["document_id"], answer.json()["job_id"]) for name, answer in answers}
    customer.uploads += [Upload(name, files[name], UUID(document), UUID(job)) for name, document, job in jobs]
    lab.settle(customer)
    effects = sum(attempt.outcome == "ready" for attempt in lab.attempts(customer))
    return Result(
        "X11",
        f"{threads} clients upload the same {number} files; a message in {_TWICE} comes twice",
        counts=[
            exactly("jobs", len(jobs), "", number),
            exactly("steps with an effect", effects, "", number),
            exactly("answers of 5xx", failed, f"of {len(answers)}", 0),
            measured("messages delivered again", repeated, ""),
        ],
        violations=verify(lab, customer),
    )


def _upload_all(customer: Customer, files: dict[str, bytes]) -> list[tuple[str, httpx.Response]]:
    return [(name, customer.api.upload(customer.source_id, name, content)) for name, content in files.items()]


def _deliver_again(lab: Lab, customer: Customer) -> int:
    steps = lab.database.records(
        "SELECT id FROM job_steps WHERE tenant_id = %(tenant)s ORDER BY random()", tenant=customer.tenant_id
    )
    publisher = lab.broker.publisher()
    chosen = steps[::_TWICE]
    for step in chosen:
        body = RunStep(tenant_id=customer.tenant_id, step_id=step.id)
        for _ in range(2):
            publisher.publish(
                queue=INGEST,
                task=RunStep.task_name,
                message_id=str(uuid4()),
                body=body.model_dump(mode="json"),
                headers={},
            )
    publisher.close()
    return 2 * len(chosen)
