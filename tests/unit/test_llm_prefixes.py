"""Which computed beginnings are used again."""

from __future__ import annotations

import random

from services.llm.backends.llama_cpp.prefixes import SavedStates, Source, common_prefix, place
from services.llm.backends.llama_cpp.seats import Seats

SYSTEM = list(range(1000, 1400))


def nothing_saved() -> SavedStates:
    return SavedStates(10_000)


def test_the_common_prefix_is_what_comparing_one_by_one_gives() -> None:
    source = random.Random(3)  # noqa: S311 - a test
    for _ in range(500):
        some = [source.randrange(2) for _ in range(source.randrange(12))]
        others = some[: source.randrange(13)] + [source.randrange(2) for _ in range(source.randrange(4))]
        expected = next(
            (n for n, (a, b) in enumerate(zip(some, others, strict=False)) if a != b), min(len(some), len(others))
        )
        assert common_prefix(some, others) == expected


def test_a_conversation_goes_on_in_its_own_sequence() -> None:
    earlier = [*SYSTEM, 1, 2, 3]

    chosen = place([*earlier, 4, 5], [[], earlier, []], [0, 1, 2], nothing_saved())

    assert (chosen.sequence, chosen.reused, chosen.source) == (1, 403, Source.PLACE)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    assert place(SYSTEM, [SYSTEM], [0], nothing_saved()).reused == 399


def test_a_beginning_in_a_busy_sequence_is_copied() -> None:
    chosen = place([*SYSTEM, 9], [[*SYSTEM, 1, 2], []], [1], nothing_saved())

    assert (chosen.sequence, chosen.reused, chosen.source, chosen.donor) == (1, 400, Source.SEQUENCE, 0)


def test_a_long_conversation_is_not_overwritten_for_its_beginning() -> None:
    long = [*SYSTEM, *range(5000)]

    chosen = place([*SYSTEM, 9], [long, []], [0, 1], nothing_saved())

    assert (chosen.sequence, chosen.source, chosen.donor) == (1, Source.SEQUENCE, 0)


def test_a_saved_state_is_used_when_it_has_more_in_common() -> None:
    states = nothing_saved()
    states.save([*SYSTEM, 1, 2, 3], b"state")

    chosen = place([*SYSTEM, 1, 2, 3, 4], [SYSTEM, []], [1], states)

    assert (chosen.sequence, chosen.reused, chosen.source) == (1, 403, Source.STATE)
    assert states.state(chosen.state) == b"state"


def test_a_stranger_gets_the_sequence_that_was_left_first() -> None:
    assert place([7, 7], [[1] * 50, [2] * 50, [3] * 50], [2, 0, 1], nothing_saved()).sequence == 2


def test_saved_states_stay_within_their_limit_and_the_oldest_go_first() -> None:
    states = SavedStates(100)
    for number in range(10):
        states.save([number] * 20, bytes(30))

    assert (len(states), states.size) == (3, 90)
    assert states.best([9] * 20) == (9,) * 20
    assert common_prefix(states.best([0] * 20), [0] * 20) == 0
    states.save([5] * 20, bytes(200))
    assert states.size == 90


def test_a_longer_state_takes_the_place_of_its_beginning() -> None:
    states = SavedStates(1000)
    states.save(SYSTEM[:100], b"short")
    states.save(SYSTEM[:200], b"longer")

    assert len(states) == 1
    assert not states.worth_saving(SYSTEM[:150])
    assert states.worth_saving(SYSTEM)


class RecurrentMemory:
    """A memory that cannot be cut anywhere but at the beginning."""

    def forget(self, sequence: int, kept: int) -> bool:
        return kept == 0

    def copy(self, source: int, target: int) -> None:
        pass

    def save(self, sequence: int) -> bytes:
        return b"state"

    def restore(self, sequence: int, state: bytes) -> bool:
        return False


def test_a_memory_that_cannot_be_cut_begins_anew() -> None:
    seats = Seats(RecurrentMemory(), 2, SavedStates(1000))
    sequence, _ = seats.take(SYSTEM)
    seats.grow(sequence, SYSTEM)
    seats.leave(sequence)

    assert seats.take([*SYSTEM[:300], 1])[1] == 0
