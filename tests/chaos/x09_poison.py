"""X9: a document that kills every worker that touches it, and messages that nobody can read."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid4

from sluice.broker import INGEST
from sluice.kill_points import KillPoint
from tests.chaos.arming import always_armed
from tests.chaos.lab import PATIENCE_SECONDS, Customer, Lab, Upload
from tests.chaos.results import Result, exactly
from tests.chaos.verify import verify
from tests.chaos.workers import until

# Fewer than this platform allows: each of them costs a worker.
_ATTEMPTS: Final = 4
_POISON: Final = (KillPoint.AFTER_CLAIM, KillPoint.AFTER_EMBED, KillPoint.AFTER_UPSERT_BEFORE_COMMIT)
_NOWHERE: Final = "sluice.v1.nowhere"


def run(lab: Lab) -> Result:
    number = lab.choose(ci=10, long=100)
    (worker, *_) = lab.platform.pids("worker")
    poisoned, neighbour = lab.customer(), lab.customer()
    with lab.platform.away("dispatcher"):
        poison = poisoned.upload()
        _allow_attempts(lab, poison)
        neighbour.upload_many(number)
    with always_armed(lab.kill_points, _POISON, poison.document_id, "SEGV"):
        lab.settle(poisoned)
        lab.settle(neighbour)
        job = poisoned.api.job(str(poison.job_id))
    died, letters = len(lab.attempts(poisoned)), _letters(lab, poisoned)
    neighbours_ready, neighbours_runs = lab.ready(neighbour), len(lab.attempts(neighbour))
    for letter in letters:
        poisoned.api.http.post(f"/api/admin/dead-letters/{letter}:replay").raise_for_status()
    lab.settle(poisoned)

    newer, vanished = _newer_schema(lab), _vanished_step(lab)
    sent, recorded = _send_garbage(lab)
    lab.settle(newer)
    lab.settle(vanished)
    failed = vanished.api.job(str(vanished.uploads[0].job_id))
    return Result(
        "X9",
        "a document that crashes every worker, and messages that nobody can read",
        counts=[
            exactly("attempts at the poisoned document", died, "", _ATTEMPTS),
            exactly("failed as worker_lost", int((job["error"] or {}).get("code") == "worker_lost"), "", 1),
            exactly("its dead letters", len(letters), "", 1),
            exactly("ready after it was harmless and replayed", lab.ready(poisoned), "documents", 1),
            exactly("neighbours ready meanwhile", neighbours_ready, "", number),
            exactly("runs of the neighbours", neighbours_runs, "", number),
            exactly("unreadable messages recorded as dead letters", recorded, "", sent),
            exactly("ready although a message had a newer schema", lab.ready(newer), "documents", 1),
            exactly("failed as step_unknown", int((failed["error"] or {}).get("code") == "step_unknown"), "", 1),
            exactly("workers that died of a message", int(worker not in lab.platform.pids("worker")), "", 0),
        ],
        violations=[
            *verify(lab, poisoned, dead_letters=1),
            *verify(lab, neighbour),
            *verify(lab, newer, dead_letters=1),
            *verify(lab, vanished, ends={"failed"}, dead_letters=1),
        ],
    )


def _allow_attempts(lab: Lab, upload: Upload) -> None:
    lab.database.rows(
        "UPDATE job_steps SET max_attempts = %(most)s WHERE job_id = %(job)s", most=_ATTEMPTS, job=upload.job_id
    )


def _letters(lab: Lab, customer: Customer) -> list[UUID]:
    query = "SELECT id FROM dead_letters WHERE tenant_id = %(tenant)s"
    return [letter for (letter,) in lab.database.rows(query, tenant=customer.tenant_id)]


def _newer_schema(lab: Lab) -> Customer:
    """A customer whose only message was written by a newer version of the dispatcher."""
    customer = lab.customer()
    with lab.platform.away("dispatcher"):
        customer.upload()
        lab.database.rows(
            """UPDATE outbox SET body = body || '{"schema_version": 2}' WHERE tenant_id = %(tenant)s""",
            tenant=customer.tenant_id,
        )
    return customer


def _vanished_step(lab: Lab) -> Customer:
    """A customer whose only step is of a kind that no worker knows any more."""
    customer = lab.customer()
    with lab.platform.away("dispatcher"):
        customer.upload()
        lab.database.rows(
            "UPDATE job_steps SET step = 'vanished' WHERE tenant_id = %(tenant)s", tenant=customer.tenant_id
        )
    return customer


def _send_garbage(lab: Lab) -> tuple[int, int]:
    """Publish messages that make no sense; how many, and how many dead letters of nobody there are more."""
    before = _nobodys(lab)
    broker, json = lab.broker, "application/json"
    broker.publish_raw(b"\xff\xfe no json \x00", content_type=json, content_encoding="utf-8")
    broker.publish_raw(b"", content_type=json, content_encoding="utf-8")
    broker.publish_raw(b'{"hello": "world"}', content_type=json, content_encoding="utf-8")
    broker.publish_raw(b"\x80\x04K\x01.", content_type="application/x-python-serialize", content_encoding="binary")
    # Deeper than Python's parser goes.
    for queue in (INGEST, _NOWHERE):
        broker.publish_raw(b"[" * 50_000, routing_key=queue, content_type=json, content_encoding="utf-8")
    # Without an id of its own, a message is known by what it says.
    broker.publish_raw(uuid4().bytes, routing_key=_NOWHERE, content_type=json, content_encoding="utf-8")
    # What is in the headers comes from strangers too, and must fit into PostgreSQL.
    for headers in (
        {"text": "a literal \\u0000, and a \x00"},
        {"number": 0.5, "deep": [{"half a pair": "\ud800"}]},
        {"x-death": "not a list"},
    ):
        broker.publish_raw(uuid4().bytes, routing_key=_NOWHERE, content_type=json, headers=headers)
    broker.publish_raw(b"{}", routing_key=_NOWHERE, content_type=json, properties={"message_id": f"\x00{uuid4()}"})
    publisher = broker.publisher()
    publisher.publish(queue=INGEST, task="jobs.unheard_of", message_id=str(uuid4()), body={}, headers={})
    publisher.publish(queue=INGEST, task="jobs.run_step", message_id=str(uuid4()), body={"step_id": 7}, headers={})
    publisher.close()
    sent = 13
    until(lambda: _nobodys(lab) >= before + sent, PATIENCE_SECONDS, "every message was recorded")
    return sent, _nobodys(lab) - before


def _nobodys(lab: Lab) -> int:
    return int(lab.database.value("SELECT count(*) FROM dead_letters WHERE tenant_id IS NULL"))
