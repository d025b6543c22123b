"""Long work in short turns: a step that has run for its turn ends, and the next one goes on from its checkpoint."""

from __future__ import annotations

import time
from typing import Final

from services.workers.resources import Resources
from sluice.db.session import tenant_session
from sluice.jobs import claims
from sluice.jobs.claims import Claim
from sluice.jobs.models import JobStep
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


def go_on_later(it: Resources, claim: Claim, following: JobStep) -> None:
    """End this step, and have the following one go on from its checkpoint, in one transaction."""
    following.job_id = claim.job_id
    following.tenant_id = claim.tenant_id
    following.checkpoint = dict(claim.checkpoint)
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.hand_on(session, claim)
        session.add(following)
        session.flush()
        promise(session, following)
