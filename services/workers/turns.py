"""Long work in short turns: a step that has run for its turn ends, and the next one goes on from its checkpoint."""

from __future__ import annotations

import time
from typing import Final

from services.workers.resources import Resources
from sluice.db.session import tenant_session
from sluice.jobs import claims, maintenance
from sluice.jobs.claims import Claim
from sluice.jobs.outbox import promise

# Well below the time limit of a step, and short enough for others to come in between.
_TURN_SECONDS: Final = 60.0


class Turn:
    """The time that one step may take."""

    def __init__(self, seconds: float = _TURN_SECONDS) -> None:
        self._ends = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether it is for the next step to go on."""
        return time.monotonic() > self._ends


def go_on_later(it: Resources, claim: Claim) -> None:
    """End this step, and have the next one go on from its checkpoint, in one transaction."""
    step = maintenance.next_step(claim.job_id, claim.step, claim.part + 1, it.jobs)
    step.job_id = claim.job_id
    step.tenant_id = claim.tenant_id
    step.checkpoint = dict(claim.checkpoint)
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.finish_part(session, claim)
        session.add(step)
        session.flush()
        promise(session, step)
