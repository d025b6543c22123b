"""What a step computes, and how much of a prompt it reads."""

from __future__ import annotations

import pytest

from services.llm.backends.llama_cpp.steps import LARGEST_STEP, Pace, Share, shares


def test_prompts_get_equal_shares_and_nobody_more_than_is_left() -> None:
    unread = [Share(0, 500), Share(1, 3), Share(2, 500)]

    given = {share.sequence: share.tokens for share in shares(unread, 43, turn=0)}

    assert given == {0: 20, 1: 3, 2: 20}


def test_what_does_not_divide_evenly_goes_round() -> None:
    unread = [Share(sequence, 100) for sequence in range(3)]

    totals = {0: 0, 1: 0, 2: 0}
    for turn in range(3):
        for share in shares(unread, 10, turn):
            totals[share.sequence] += share.tokens

    assert totals == {0: 10, 1: 10, 2: 10}


def test_a_budget_smaller_than_the_number_of_prompts_goes_round() -> None:
    unread = [Share(sequence, 100) for sequence in range(8)]

    served = {share.sequence for turn in range(8) for share in shares(unread, 1, turn)}

    assert served == set(range(8))


@pytest.mark.parametrize(("unread", "budget"), [([], 10), ([Share(0, 5)], 0)])
def test_nothing_comes_of_nothing(unread: list[Share], budget: int) -> None:
    assert shares(unread, budget, turn=7) == []


def a_pace(target: float = 0.05, stuck: float = 15.0) -> Pace:
    """Learnt: 40 ms for four running answers, and 4 ms for each token of a prompt."""
    pace = Pace(target, stuck)
    pace.record(writers=4, read=0, seconds=0.040)
    pace.record(writers=4, read=10, seconds=0.080)
    return pace


def test_nobody_is_disturbed_while_nobody_writes() -> None:
    assert Pace(0.05, 15).budget(writers=0) == LARGEST_STEP
    assert a_pace().budget(writers=0) == LARGEST_STEP


def test_beside_running_answers_a_prompt_gets_what_time_is_left() -> None:
    # Twice the usual 40 ms: 40 ms are left, 4 ms each.
    assert a_pace().budget(writers=4) == 10
    # The pauses may be 120 ms long: 80 ms are left.
    assert a_pace(target=0.121).budget(writers=4) == 20


def test_a_prompt_always_goes_on() -> None:
    slow = Pace(0.05, 15)
    slow.record(writers=1, read=0, seconds=0.2)
    slow.record(writers=1, read=1, seconds=2.0)

    assert slow.budget(writers=1) >= 1


def test_no_step_is_so_long_that_the_watchdog_would_bark() -> None:
    large = Pace(0.05, stuck_seconds=8)
    large.record(writers=0, read=256, seconds=25.6)

    assert large.budget(writers=0) == 20


def test_the_pace_follows_the_machine() -> None:
    pace = a_pace()
    for _ in range(30):
        pace.record(writers=4, read=10, seconds=0.240)

    assert pace.budget(writers=4) < 5
