"""What a request learns from beyond its caller's tenant, and nothing else: a place in line, and letters of nobody."""

from __future__ import annotations

from uuid import UUID

from services.api.dependencies import Resources
from sluice.db.unscoped import unscoped_session
from sluice.errors import NotAllowed
from sluice.identity.roles import Role
from sluice.identity.tokens import Caller
from sluice.jobs import dead_letters, dispatch
from sluice.jobs.dead_letters import Group, LetterFilter, Owner
from sluice.jobs.models import DeadLetter, Job
from sluice.jobs.state import FINISHED


def place_in_line(it: Resources, job: Job) -> int | None:
    """How many steps, whosever they are, are before the job's next one, and one; None when nothing of it waits."""
    if job.state in FINISHED:
        return None
    with unscoped_session(it.unscoped) as session:
        return dispatch.place_in_line(session, job.id)


class LettersOfNobody:
    """Dead letters that name no tenant: messages that could not be read. Only who runs the platform sees them."""

    def __init__(self, it: Resources, who: Caller) -> None:
        """`NotAllowed` unless the caller runs the platform."""
        if not who.role.includes(Role.ADMIN):
            raise NotAllowed(
                f"Letters that belong to no tenant need the role {Role.ADMIN}; yours is {who.role}.",
                needed_role=Role.ADMIN.value,
            )
        self._it = it
        self._who = who

    def page(self, wanted: LetterFilter, *, resolved: bool | None, before: UUID | None, limit: int) -> list[DeadLetter]:
        """Some of them, newest first."""
        with unscoped_session(self._it.unscoped) as session:
            letters = dead_letters.page(session, wanted, Owner.NOBODY, resolved=resolved, before=before, limit=limit)
            session.expunge_all()
            return list(letters)

    def groups(self, limit: int) -> list[Group]:
        """The open ones by kind."""
        with unscoped_session(self._it.unscoped) as session:
            return dead_letters.groups(session, Owner.NOBODY, limit=limit)

    def get(self, letter_id: UUID) -> DeadLetter:
        """One of them."""
        with unscoped_session(self._it.unscoped) as session:
            letter = dead_letters.get(session, letter_id, Owner.NOBODY)
            session.expunge(letter)
            return letter

    def discard(self, letter_id: UUID) -> DeadLetter:
        """Close one of them."""
        with unscoped_session(self._it.unscoped) as session:
            letter = dead_letters.discard(session, letter_id, Owner.NOBODY, by=self._who.user_id)
            session.flush()
            session.expunge(letter)
            return letter
