"""Checks of a document's life: in, read, refused a second time, stopped, tried again, and gone."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from services.cli.client import Refused
from services.cli.smoke.visit import Json, Visit, failure

_FILE: Final = "smoke.txt"


def source(visit: Visit) -> Json:
    """A source of our own, so that nothing else is found in it."""
    made = visit.make("/api/sources", json={"name": visit.source_name})
    visit.source_id = made["id"]
    return {"name": made["name"]}


def upload(visit: Visit) -> Json:
    """A file is taken in."""
    accepted = visit.upload(_FILE, visit.fact.text)
    return {"document": accepted["document_id"], "job": accepted["job_id"]}


def ingest(visit: Visit) -> Json:
    """The file is read, embedded and indexed, and its job tells how far it has come."""
    last = visit.ready(visit.uploads[0])
    document = visit.client.call("GET", f"/api/documents/{visit.uploads[0].document_id}")
    if not document["searchable"]:
        raise failure("The job is ready, but the document is not searchable.")
    return {"seconds": last["elapsed_seconds"], "chunks": document["version"]["chunks"]}


def duplicate(visit: Visit) -> Json:
    """The same bytes are recognized."""
    again = visit.upload(_FILE, visit.fact.text)
    if not again["duplicate"] or again["document_id"] != visit.uploads[0].document_id:
        raise failure("The same bytes, uploaded again, were taken for something new.")
    return {}


def cancel(visit: Visit) -> Json:
    """A job is stopped while it waits or runs; one that was faster says that nothing can be done to it any more."""
    visit.upload("smoke-chronicle.txt", visit.fact.chronicle)
    stopping = visit.uploads[-1]
    try:
        visit.client.call("POST", f"/api/admin/jobs/{stopping.job_id}:cancel")
    except Refused as refused:
        _must_be_too_late(refused)
        visit.stopped = visit.ready(stopping)["state"]
        return {"state": visit.stopped, "answer": refused.problem["code"]}
    visit.stopped = visit.ended(stopping)["state"]
    if visit.stopped != "canceled":
        raise failure(f"The job took the order to stop and is {visit.stopped} all the same.")
    return {"state": visit.stopped}


def retry(visit: Visit) -> Json:
    """A job that was stopped is tried again and ends well."""
    stopped = visit.uploads[-1]
    try:
        visit.client.call("POST", f"/api/admin/jobs/{stopped.job_id}:retry")
    except Refused as refused:
        if visit.stopped != "ready":
            raise
        _must_be_too_late(refused)
        return {"state": "ready", "answer": refused.problem["code"]}
    return {"state": visit.ready(stopped)["state"]}


def erase(visit: Visit) -> Json:
    """A document is erased from every store, and nobody finds it any more."""
    document = visit.uploads[0].document_id
    receipt = visit.client.call("DELETE", f"/api/documents/{document}")
    left = {store: receipt[store] for store in ("rows", "points", "objects")}
    if any(left.values()):
        raise failure(f"Of the erased document are left: {left}.")
    for question in (visit.fact.question, visit.fact.paraphrase):
        _, ours = visit.search(question)
        if ours is not None:
            raise failure("The erased document is still found by a search.")
    try:
        visit.client.call("GET", f"/api/documents/{document}")
    except Refused as refused:
        if refused.http_status != HTTPStatus.NOT_FOUND:
            raise
        return left
    raise failure("The erased document is still shown.")


def _must_be_too_late(refused: Refused) -> None:
    """Pass only the answer that a job which has ended well gives."""
    if refused.http_status != HTTPStatus.CONFLICT or refused.problem.get("allowed_actions") != []:
        raise refused
