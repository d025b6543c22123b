"""The doctor at work: every examination of a tenant's stores, page by page, and a second look after mending."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from services.workers import indexing
from services.workers.lease import Lease
from services.workers.resources import Resources
from services.workers.turns import Turn, go_on_later
from sluice.db.session import tenant_session
from sluice.documents.doctor.examination import Examination, Patient
from sluice.documents.doctor.objects import LostOriginals, OrphanedObjects
from sluice.documents.doctor.points import MissingPoints, OrphanedPoints
from sluice.documents.doctor.rows import ExpiredUploads, HalfErased, Incomplete, LeftOverChunks, StuckJobs
from sluice.documents.models import Chunk, DocumentVersion
from sluice.jobs import claims
from sluice.jobs.claims import Canceled, Claim
from sluice.jobs.maintenance import next_step

_SAMPLES: Final = 5
_MOST_LOST: Final = 1_000
# Looks: the first one mends what it finds if it was asked to, the second one says what is left.
_FIRST, _SECOND = 1, 2


def doctor(it: Resources, claim: Claim, lease: Lease) -> None:
    """Compare the tenant's stores, mend them if the job says so, and write down what is (left) wrong."""
    turn = Turn()
    repair = bool(claim.options.get("repair"))
    it.ask_for_models()
    patient = _patient(it, claim)
    if "look" not in claim.checkpoint:
        for dense in patient.dense:
            patient.index.ensure(dense, again=True)
        _remember(it, claim, look=_FIRST, at=0, after=None, wrong={}, collections=patient.index.collections())
    examinations = _examinations(claim.checkpoint["collections"])
    while not turn.is_over():
        lease.check()
        at = claim.checkpoint["at"]
        if at < len(examinations):
            mends = repair and claim.checkpoint["look"] == _FIRST
            _turn_page(it, claim, patient, examinations[at], mends=mends)
        elif repair and claim.checkpoint["look"] == _FIRST:
            found = _counts(claim.checkpoint["wrong"])
            _remember(it, claim, look=_SECOND, at=0, after=None, wrong={}, found=found)
        else:
            claims.finish_at_once(it.sessions, claim, _result(claim.checkpoint, repair=repair))
            return
    go_on_later(it, claim, next_step(claim.job_id, claim.step, claim.part + 1, it.jobs))


def _patient(it: Resources, claim: Claim) -> Patient:
    def upsert(version: DocumentVersion, chunks: list[Chunk]) -> None:
        # A document that was erased since the look needs no points any more.
        with suppress(Canceled):
            for batch in indexing.by_tokens(it, chunks):
                indexing.upsert_chunks(it, claim, version, batch)

    return Patient(claim.tenant_id, it.sessions, it.store, it.index, it.dense_collections(), it.jobs, upsert)


def _examinations(collections: list[str]) -> list[Examination]:
    """PostgreSQL first: what it gives up is then an orphan elsewhere."""
    return [
        ExpiredUploads(),
        HalfErased(),
        LeftOverChunks(),
        Incomplete(),
        StuckJobs(),
        *(OrphanedPoints(name) for name in collections),
        MissingPoints(),
        OrphanedObjects(),
        LostOriginals(),
    ]


def _turn_page(it: Resources, claim: Claim, patient: Patient, examination: Examination, *, mends: bool) -> None:
    look = examination.look(patient, claim.checkpoint["after"])
    if mends:
        look.mend()
    wrong = claim.checkpoint["wrong"]
    entry = wrong.setdefault(f"{examination.store}.{examination.kind}", {"number": 0, "samples": []})
    entry["number"] += len(look.wrong)
    most = _MOST_LOST if isinstance(examination, LostOriginals) else _SAMPLES
    entry["samples"] = [*entry["samples"], *look.wrong][:most]
    at = claim.checkpoint["at"] + (look.after is None)
    _remember(it, claim, wrong=wrong, at=at, after=look.after)


def _remember(it: Resources, claim: Claim, **facts: Any) -> None:
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.checkpoint(session, claim, **facts)


def _counts(wrong: dict[str, Any]) -> dict[str, dict[str, int]]:
    """How much of each kind is wrong with each store."""
    counts: dict[str, dict[str, int]] = {"qdrant": {}, "s3": {}, "postgres": {}}
    for name, entry in wrong.items():
        store, _, kind = name.partition(".")
        counts[store][kind] = entry["number"]
    return counts


def _result(checkpoint: dict[str, Any], *, repair: bool) -> dict[str, Any]:
    wrong = checkpoint["wrong"]
    samples = {name: entry["samples"][:_SAMPLES] for name, entry in wrong.items() if entry["number"]}
    return {
        **_counts(wrong),
        "repair": repair,
        # Before it was mended.
        "found": checkpoint.get("found") or _counts(wrong),
        "samples": samples,
        # Documents whose file is gone for good.
        "lost": wrong["s3.missing"]["samples"],
    }
