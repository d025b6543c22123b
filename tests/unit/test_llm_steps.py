"""What a step computes, and how much of a prompt it reads."""

from __future__ import annotations

from itertools import groupby

import pytest

from services.llm.backends.llama_cpp.steps import LARGEST_STEP, ROWS_AT_ONCE, Pace, Turns


def test_short_prompts_are_read_one_after_the_other() -> None:
    turns = Turns()

    assert turns.shares({0: 130, 1: 130, 2: 130}, 200) == {0: 130, 1: 70}
    assert turns.shares({1: 60, 2: 130}, 200) == {1: 60, 2: 130}


def test_a_long_prompt_lets_others_have_their_turn() -> None:
    turns, left = Turns(), {0: 2000, 1: 100, 2: 600}
    order = []

    while left:
        for sequence, tokens in turns.shares(left, 64).items():
            order.append(sequence)
            left[sequence] -= tokens
        left = {sequence: tokens for sequence, tokens in left.items() if tokens}

    assert [sequence for sequence, _ in groupby(order)] == [0, 1, 2, 0, 2, 0, 2, 0]


def test_a_newcomer_stands_at_the_end_and_who_leaves_is_forgotten() -> None:
    turns = Turns()
    turns.shares({3: 500, 1: 500}, 100)

    assert turns.shares({3: 400, 1: 500, 0: 50}, 200) == {3: 156, 1: 44}
    assert turns.shares({0: 50, 3: 200}, 100) == {3: 50, 0: 50}


@pytest.mark.parametrize("budget", [1, 7, 256])
def test_the_budget_is_spent_as_long_as_something_is_left(budget: int) -> None:
    assert sum(Turns().shares({0: 3, 1: 500, 2: 9}, budget).values()) == budget
    assert Turns().shares({0: 3}, budget) == {0: min(3, budget)}


@pytest.mark.parametrize(("unread", "budget"), [({}, 10), ({0: 5}, 0)])
def test_nothing_comes_of_nothing(unread: dict[int, int], budget: int) -> None:
    assert Turns().shares(unread, budget) == {}


def a_pace(target: float = 0.05, stuck: float = 15.0) -> Pace:
    """Learnt: 40 ms for four running answers, and 2 ms for each token of a prompt."""
    pace = Pace(target, stuck)
    pace.record_writing(writers=4, seconds=0.040)
    pace.record_reading(tokens=16, seconds=0.044)
    return pace


def test_nobody_is_disturbed_while_nobody_writes() -> None:
    assert a_pace().budget(writers=0, readers=1) == LARGEST_STEP


@pytest.mark.parametrize("writers", [0, 3])
def test_the_first_pass_is_small_because_nobody_knows_how_slow_the_model_is(writers: int) -> None:
    assert Pace(0.05, 15).budget(writers=writers, readers=1) == ROWS_AT_ONCE


def test_beside_running_answers_a_prompt_gets_what_time_is_left() -> None:
    # A little more than twice the usual 40 ms: 46 ms are left.
    assert a_pace().budget(writers=4, readers=1) == 16
    # The pauses may be 130 ms long: 90 ms are left.
    assert a_pace(target=0.130).budget(writers=4, readers=1) == 32


def test_a_prompt_is_read_no_slower_when_others_come() -> None:
    assert a_pace(target=0.130).budget(writers=4, readers=3) >= 3 * 32


@pytest.mark.parametrize("target", [0.05, 0.07, 0.1, 0.2, 0.4, 1.0])
@pytest.mark.parametrize("writers", range(9))
def test_as_many_tokens_are_read_as_are_computed_at_once(writers: int, target: float) -> None:
    budget = a_pace(target).budget(writers, readers=1)

    assert budget in {4, 8} or budget % ROWS_AT_ONCE == 0
    assert 0 < budget <= LARGEST_STEP


def test_a_prompt_always_goes_on() -> None:
    slow = Pace(0.05, 15)
    slow.record_writing(writers=1, seconds=0.2)
    slow.record_reading(tokens=4, seconds=20.0)

    assert slow.budget(writers=1, readers=1) == 4


def test_no_step_is_so_long_that_the_watchdog_would_bark() -> None:
    large = Pace(0.05, stuck_seconds=8)
    large.record_reading(tokens=256, seconds=26.2)

    # 2 s, of 0.1 s for a row.
    assert large.budget(writers=0, readers=1) == 16


def test_the_pace_follows_the_machine() -> None:
    pace = a_pace()
    for _ in range(30):
        pace.record_reading(tokens=16, seconds=0.440)

    assert pace.budget(writers=4, readers=1) == 4
