"""The states of a job, the moves between them, and how long the next attempt waits."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from sluice.errors import Conflict
from sluice.jobs.claims import backoff
from sluice.jobs.state import ALLOWED_ACTIONS, FINISHED, LIVE, NEXT_STATES, Action, JobState, check_allowed, sources_of
from sluice.settings import JobSettings


def test_every_state_says_what_may_follow_it_and_what_a_person_may_do() -> None:
    assert NEXT_STATES.keys() == ALLOWED_ACTIONS.keys() == set(JobState)


def test_every_state_can_be_reached_from_the_first_one() -> None:
    reached = {JobState.QUEUED}
    while more := {following for state in reached for following in NEXT_STATES[state]} - reached:
        reached |= more

    assert reached == set(JobState)


def test_a_live_job_can_always_end_and_a_ready_one_never_changes() -> None:
    for state in LIVE:
        assert NEXT_STATES[state] & FINISHED
    assert NEXT_STATES[JobState.READY] == frozenset()
    assert frozenset(JobState) == LIVE | FINISHED
    assert not LIVE & FINISHED


def test_the_sources_of_a_state_are_the_states_that_it_may_follow() -> None:
    for state, target in product(JobState, JobState):
        assert (state in sources_of(target)) == (target in NEXT_STATES[state])


def test_only_a_claim_makes_a_job_run() -> None:
    assert sources_of(JobState.RUNNING) == {JobState.QUEUED}


@pytest.mark.parametrize(("action", "state"), list(product(Action, JobState)))
def test_an_action_is_refused_unless_the_state_allows_it(action: Action, state: JobState) -> None:
    allowed = {Action.CANCEL: LIVE, Action.RETRY: {JobState.FAILED, JobState.CANCELED}}[action]
    if state in allowed:
        check_allowed(action, state)
        return

    with pytest.raises(Conflict) as refused:
        check_allowed(action, state)

    assert refused.value.code == "action_not_allowed"
    assert refused.value.facts["allowed_actions"] == list(ALLOWED_ACTIONS[state])
    assert state.value in refused.value.detail


def test_what_an_action_does_is_an_allowed_move() -> None:
    for state in ALLOWED_ACTIONS:
        if Action.RETRY in ALLOWED_ACTIONS[state]:
            assert JobState.QUEUED in NEXT_STATES[state]
        if Action.CANCEL in ALLOWED_ACTIONS[state]:
            assert JobState.CANCELED in NEXT_STATES[state]


def test_the_delay_before_an_attempt_doubles_up_to_its_ceiling_and_is_never_less_than_half() -> None:
    settings = JobSettings(backoff_seconds=2, backoff_max_seconds=30)

    for attempt, ceiling in enumerate([2, 4, 8, 16, 30, 30, 30], start=1):
        delays = {backoff(attempt, settings) for _ in range(200)}
        assert ceiling / 2 <= min(delays) <= max(delays) <= ceiling
        assert len(delays) > 100


def test_the_diagram_in_the_documentation_shows_these_moves_and_no_others() -> None:
    page = Path(__file__).parents[2] / "docs" / "architecture.md"
    lines = [line.strip() for line in page.read_text(encoding="utf-8").splitlines()]
    drawn = {tuple(line.split(":")[0].split(" --> ")) for line in lines if " --> " in line}

    states = {state.value for state in JobState}
    assert {move for move in drawn if set(move) <= states} == {
        (state.value, following.value) for state, then in NEXT_STATES.items() for following in then
    }
