"""Parts that stop, die and come back while documents are read: none is lost, doubled or half there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest
from kombu.connection import Connection
from sqlalchemy import select

from infra.embedded.platform import Platform
from sluice.broker import QUEUES
from sluice.db.unscoped import unscoped_session
from sluice.identity.roles import Role
from sluice.jobs.models import DeadLetter
from tests.e2e.api import Api, Json
from tests.e2e.faults import (
    OUTAGE_SECONDS,
    RECOVERY_SECONDS,
    assert_whole,
    chronicle,
    frozen,
    in_the_middle_of_embedding,
    ships,
    spent_attempts,
)
from tests.e2e.running import SETTINGS, Join, Member, Stores, counted


def test_without_the_embedder_words_still_find_and_ingest_goes_on_when_it_is_back(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships every night.")
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        pass

    with platform.away("emb"):
        found = api.search(source, "Who counts ships every night?")
        answer = api.ask(source, "Who counts ships every night?")
        waiting = api.wait_for(accepted["job_id"], lambda job: job["error"] is not None)
        time.sleep(OUTAGE_SECONDS)

    assert found["degraded"] == answer.the("retrieval.result")["degraded"] == ["dense"]
    assert [passage["document_name"] for passage in found["passages"]] == ["ships.txt"]
    assert "counts the ships every night" in answer.text
    assert waiting["error"]["code"] == "embedder_unavailable"
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)
    assert_whole(api, editor, stores, job, content)
    assert spent_attempts(job) == 0
    assert job["error"] is None


def test_a_document_half_in_the_index_is_not_found_before_it_is_ready(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    accepted = api.accepted(source, "chronicle.txt", chronicle())
    with ExitStack() as asleep:
        with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
            asleep.enter_context(frozen(platform, "worker"))
        indexed = stores.index.count_document(editor.tenant_id, UUID(accepted["document_id"]))
        found = api.found(source, "Which ships did the harbour master count?")

    assert indexed > 0
    assert found == []
    assert api.wait(accepted["job_id"], RECOVERY_SECONDS)["state"] == "ready"
    assert api.found(source, "Which ships did the harbour master count?")


def test_a_job_canceled_while_it_runs_is_not_found_until_it_was_tried_again(
    platform: Platform, api: Api, source: str, join: Join, tenant_name: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    administrator = join(tenant_name, Role.TENANT_ADMIN).api.http
    job_path = f"/api/admin/jobs/{accepted['job_id']}"

    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        asked = administrator.post(f"{job_path}:cancel")
    job = api.wait(accepted["job_id"])

    assert asked.status_code == 200
    assert (job["state"], job["allowed_actions"]) == ("canceled", ["retry"])
    assert api.found(source, "Which ships did the harbour master count?") == []
    assert administrator.post(f"{job_path}:cancel").json()["code"] == "action_not_allowed"
    assert administrator.post(f"{job_path}:retry").status_code == 200
    assert_whole(api, editor, stores, api.wait(accepted["job_id"], RECOVERY_SECONDS), content)
    assert api.found(source, "Which ships did the harbour master count?")


def test_a_long_document_that_was_canceled_on_its_way_goes_on_with_the_parts_that_were_missing(
    platform: Platform, api: Api, source: str, join: Join, tenant_name: str, editor: Member, stores: Stores
) -> None:
    content = ships()
    accepted = api.accepted(source, "ships.md", content)
    administrator = join(tenant_name, Role.TENANT_ADMIN).api.http
    job_path = f"/api/admin/jobs/{accepted['job_id']}"
    api.wait_for(accepted["job_id"], lambda job: any(map(_is_ready_part, job["steps"])), RECOVERY_SECONDS)

    administrator.post(f"{job_path}:cancel").raise_for_status()
    canceled = api.wait(accepted["job_id"])
    administrator.post(f"{job_path}:retry").raise_for_status()
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert canceled["state"] == "canceled"
    assert_whole(api, editor, stores, job, content)
    attempts = {step["part"]: step["attempt"] for step in job["steps"] if step["step"] == "embed"}
    assert {attempts[step["part"]] for step in canceled["steps"] if _is_ready_part(step)} == {1}
    assert [step["step"] for step in job["steps"]].count("finalize") == 1


def _is_ready_part(step: Json) -> bool:
    return bool(step["step"] == "embed" and step["state"] == "ready")


def test_content_that_comes_back_before_another_version_was_read_is_what_is_found(
    platform: Platform, api: Api, source: str
) -> None:
    first, second = (chronicle(tokens=50) for _ in range(2))
    api.ingested(source, "chronicle.txt", first)

    with platform.away("worker"):
        between = api.accepted(source, "chronicle.txt", second)
        back = api.upload(source, "chronicle.txt", first)
    assert back.json()["document_id"] == between["document_id"]

    assert api.wait(between["job_id"], RECOVERY_SECONDS)["state"] == "canceled"
    assert api.found(source, "harbour master ships") == [first.decode()]


def test_a_worker_killed_while_it_embeds_leaves_a_document_that_is_whole(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)

    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        platform.kill("worker")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert_whole(api, editor, stores, job, content)
    assert job["steps"][0]["attempt"] == 2


def test_a_worker_killed_while_it_embeds_a_long_document_in_parts_leaves_it_whole(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = ships()
    accepted = api.accepted(source, "ships.md", content)

    with in_the_middle_of_embedding(platform, api, accepted["job_id"]) as before:
        platform.kill("worker")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert before["total"] > 512
    assert [step["step"] for step in job["steps"]][-1] == "finalize"
    # A crash costs what each of the two processes had in hand, and nothing that was done before.
    attempts = {(step["step"], step["part"]): step["attempt"] for step in job["steps"]}
    assert 1 <= sum(attempts.values()) - len(attempts) <= 2
    assert {attempts[step["step"], step["part"]] for step in before["steps"] if step["state"] == "ready"} == {1}
    assert (job["done"], job["total"]) == (before["total"], before["total"])
    assert_whole(api, editor, stores, job, content)


def test_the_database_away_for_ten_seconds_loses_nothing(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        pass

    with platform.away("postgres"):
        time.sleep(OUTAGE_SECONDS)
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert_whole(api, editor, stores, job, content)
    assert spent_attempts(job) == 0


def test_the_object_store_away_for_ten_seconds_loses_nothing(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle(tokens=1_000)
    with platform.away("worker"):
        accepted = api.accepted(source, "chronicle.txt", content)
        platform.stop("s3")
    try:
        refused = api.upload(source, "other.txt", chronicle(tokens=100))
        waiting = api.wait_for(accepted["job_id"], lambda job: job["error"] is not None)
        time.sleep(OUTAGE_SECONDS)
    finally:
        platform.start("s3")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert (refused.status_code, refused.json()["code"]) == (503, "object_store_unavailable")
    assert waiting["error"]["code"] == "object_store_unavailable"
    assert_whole(api, editor, stores, job, content)
    assert spent_attempts(job) == 0
    assert api.get("/api/documents", source_id=source)["data"][0]["id"] == accepted["document_id"]


def test_the_broker_away_for_ten_seconds_loses_nothing(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    running, queued = chronicle(), chronicle(tokens=1_000)
    first = api.accepted(source, "running.txt", running)
    with in_the_middle_of_embedding(platform, api, first["job_id"]):
        pass

    with platform.away("rabbitmq"):
        second = api.accepted(source, "queued.txt", queued)
        time.sleep(OUTAGE_SECONDS)
    jobs = [api.wait(accepted["job_id"], RECOVERY_SECONDS) for accepted in (first, second)]

    for job, content in zip(jobs, (running, queued), strict=True):
        assert_whole(api, editor, stores, job, content)


def test_messages_that_the_broker_lost_are_sent_again(
    platform: Platform, api: Api, source: str, variables: dict[str, str]
) -> None:
    with platform.away("worker"):
        jobs = [api.accepted(source, f"{n}.txt", chronicle(tokens=100))["job_id"] for n in range(3)]
        assert lost_messages(variables, at_least=3) >= 3

    assert [api.wait(job, RECOVERY_SECONDS)["state"] for job in jobs] == ["ready"] * 3


def test_a_queue_that_somebody_deleted_is_made_anew_and_costs_no_attempt(
    platform: Platform, api: Api, source: str, variables: dict[str, str], stores: Stores
) -> None:
    with platform.away("worker"):
        with Connection(variables["SLUICE_BROKER_URL"], connect_timeout=10) as connection:
            for queue in QUEUES:
                connection.channel().queue_delete(queue)
        job_id = api.accepted(source, "note.txt", chronicle(tokens=100))["job_id"]
        letters = recorded(stores, UUID(job_id))
    job = api.wait(job_id, RECOVERY_SECONDS)

    assert (job["state"], spent_attempts(job)) == ("ready", 0)
    assert {letter.reason for letter in letters} == {"unrouted"}


def recorded(stores: Stores, job_id: UUID) -> Sequence[DeadLetter]:
    """The dead letters of the job, once there are any."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with unscoped_session(stores.unscoped) as session:
            if letters := session.scalars(select(DeadLetter).where(DeadLetter.job_id == job_id)).all():
                session.expunge_all()
                return letters
        time.sleep(0.2)
    raise AssertionError("No dead letter was recorded.")


def lost_messages(variables: dict[str, str], *, at_least: int) -> int:
    """Empty the queues, once so many messages are in them; how many were lost."""
    lost = 0
    deadline = time.monotonic() + 30
    with Connection(variables["SLUICE_BROKER_URL"], connect_timeout=10) as connection:
        channel = connection.channel()
        while lost < at_least and time.monotonic() < deadline:
            lost += sum(channel.queue_purge(queue) for queue in QUEUES)
            time.sleep(0.2)
    return lost


def test_a_worker_told_to_stop_gives_its_step_back(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
        pass

    platform.restart("worker")
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert_whole(api, editor, stores, job, content)


def test_a_worker_that_slept_past_its_lease_writes_nothing_afterwards(
    platform: Platform, api: Api, source: str, editor: Member, stores: Stores
) -> None:
    content = chronicle()
    accepted = api.accepted(source, "chronicle.txt", content)
    (metrics,) = [part.address.removesuffix("/metrics") for part in platform.status() if part.name == "worker"]
    before = counted(metrics, "sluice_fence_rejections_total")
    with ExitStack() as asleep:
        with in_the_middle_of_embedding(platform, api, accepted["job_id"]):
            asleep.enter_context(frozen(platform, "worker"))
        time.sleep(float(SETTINGS["SLUICE_JOBS_LEASE_SECONDS"]) + 3)
        expired = api.job(accepted["job_id"])
    job = api.wait(accepted["job_id"], RECOVERY_SECONDS)

    assert expired["steps"][0]["state"] == "queued"
    assert counted(metrics, "sluice_fence_rejections_total") > before
    assert_whole(api, editor, stores, job, content)
    assert job["steps"][0]["attempt"] == 2


@pytest.mark.parametrize("name", ["api", "dispatcher", "emb", "llm"])
def test_a_killed_service_comes_back_and_the_platform_works_on(
    platform: Platform, api: Api, source: str, name: str
) -> None:
    (before, *_) = platform.pids(name)

    platform.kill(name)
    deadline = time.monotonic() + 60
    while platform.pids(name)[:1] in ([], [before]):
        assert time.monotonic() < deadline, f"{name} did not come back"
        time.sleep(0.05)
    platform.wait_ready(name)

    mark = uuid4().hex
    document = api.ingested(source, "note.txt", f"The mark of this note is {mark}.".encode())
    assert document["searchable"]
    assert mark in api.ask(source, "What is the mark of this note?").text
