"""The steps that a message can name, and what runs each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.workers.doctor import doctor
from services.workers.ingest import embed_part, finalize, ingest
from services.workers.lease import Lease
from services.workers.reindex import reindex
from services.workers.resources import Resources
from sluice.jobs.claims import Claim

STEPS: Final[dict[str, Callable[[Resources, Claim, Lease], None]]] = {
    "ingest": ingest,
    "embed": embed_part,
    "finalize": finalize,
    "reindex": reindex,
    "doctor": doctor,
}
