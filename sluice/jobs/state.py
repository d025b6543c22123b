"""The states of a job and of its steps, and the moves between them, as data."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sluice.errors import Conflict


class JobState(StrEnum):
    """Where a job, or one of its steps, stands."""

    QUEUED = "queued"  # waiting for a worker, or for its next attempt
    RUNNING = "running"  # a worker holds its lease
    READY = "ready"  # done
    FAILED = "failed"  # given up, with a code and a sentence
    CANCELED = "canceled"  # a person stopped it


class Action(StrEnum):
    """What a person may do to a job."""

    CANCEL = "cancel"
    RETRY = "retry"


NEXT_STATES: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELED, JobState.FAILED}),
    # Back to queued: an error that may pass, or the sweeper found the worker gone.
    JobState.RUNNING: frozenset({JobState.READY, JobState.FAILED, JobState.CANCELED, JobState.QUEUED}),
    JobState.READY: frozenset(),
    # Back to queued: a person asked for another try.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELED: frozenset({JobState.QUEUED}),
}

ALLOWED_ACTIONS: Final[dict[JobState, tuple[Action, ...]]] = {
    JobState.QUEUED: (Action.CANCEL,),
    JobState.RUNNING: (Action.CANCEL,),
    JobState.READY: (),
    JobState.FAILED: (Action.RETRY,),
    JobState.CANCELED: (Action.RETRY,),
}

LIVE: Final = frozenset({JobState.QUEUED, JobState.RUNNING})
FINISHED: Final = frozenset(JobState) - LIVE


def sources_of(target: JobState) -> frozenset[JobState]:
    """The states from which a job may move to `target`."""
    return frozenset(state for state, following in NEXT_STATES.items() if target in following)


def check_allowed(action: Action, state: JobState) -> None:
    """Raise `Conflict`, naming what is allowed instead, unless a job in `state` accepts `action`."""
    allowed = ALLOWED_ACTIONS[state]
    if action not in allowed:
        instead = f"allowed now: {', '.join(allowed)}" if allowed else "nothing can be done to it any more"
        raise Conflict(
            f"A job that is {state} cannot be told to {action}; {instead}.",
            code="action_not_allowed",
            allowed_actions=list(allowed),
        )
