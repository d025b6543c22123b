"""Which computed beginnings are used again."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence

import pytest

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
    states.save([*SYSTEM, 1, 2, 3], bytearray(b"state"))

    chosen = place([*SYSTEM, 1, 2, 3, 4], [SYSTEM, []], [1], states)

    assert (chosen.sequence, chosen.reused, chosen.source) == (1, 403, Source.STATE)
    assert states.state(chosen.state) == b"state"


def test_a_stranger_gets_the_sequence_that_was_left_first() -> None:
    assert place([7, 7], [[1] * 50, [2] * 50, [3] * 50], [2, 0, 1], nothing_saved()).sequence == 2


def test_saved_states_stay_within_their_limit_and_the_oldest_go_first() -> None:
    states = SavedStates(100)
    for number in range(10):
        states.save([number] * 20, bytearray(30))

    assert (len(states), states.size) == (3, 90)
    assert states.best([9] * 20) == (9,) * 20
    assert common_prefix(states.best([0] * 20), [0] * 20) == 0
    states.save([5] * 20, bytearray(200))
    assert states.size == 90


def test_a_longer_state_takes_the_place_of_its_beginning() -> None:
    states = SavedStates(1000)
    states.save(SYSTEM[:100], bytearray(b"short"))
    states.save(SYSTEM[:200], bytearray(b"longer"))

    assert len(states) == 1
    assert not states.worth_saving(SYSTEM[:150])
    assert states.worth_saving(SYSTEM)


class RecurrentMemory:
    """A memory that cannot be cut anywhere but at the beginning."""

    def forget(self, sequence: int, kept: int) -> bool:
        return kept == 0

    def saved_bytes(self, sequence: int) -> int:
        return len(b"state")

    def save(self, sequence: int) -> bytearray:
        return bytearray(b"state")

    def restore(self, sequence: int, state: bytearray) -> bool:
        return False


def test_a_memory_that_cannot_be_cut_begins_anew() -> None:
    seats = Seats(RecurrentMemory(), 2, SavedStates(1000))
    sequence, _ = seats.take(SYSTEM)
    seats.grow(sequence, SYSTEM)
    seats.leave(sequence)

    assert seats.take([*SYSTEM[:300], 1])[1] == 0


def state_of(tokens: Sequence[int]) -> bytearray:
    return bytearray(array("i", tokens).tobytes())


class LlamaMemory:
    """Keeps tokens where llama.cpp keeps keys and values. Its own `copy` waits for the next pass; nothing else does."""

    def __init__(self, sequences: int) -> None:
        self.cells: list[list[int]] = [[] for _ in range(sequences)]
        self.saves = 0
        self._queued: list[tuple[int, int]] = []

    def compute(self, sequence: int, tokens: Sequence[int]) -> None:
        for source, target in self._queued:
            self.cells[target][: len(self.cells[source])] = self.cells[source]
        self._queued.clear()
        self.cells[sequence] += tokens

    def forget(self, sequence: int, kept: int) -> bool:
        del self.cells[sequence][kept:]
        return True

    def copy(self, source: int, target: int) -> None:
        self._queued.append((source, target))

    def saved_bytes(self, sequence: int) -> int:
        return len(state_of(self.cells[sequence]))

    def save(self, sequence: int) -> bytearray:
        self.saves += 1
        return state_of(self.cells[sequence])

    def restore(self, sequence: int, state: bytearray) -> bool:
        self.cells[sequence] = list(array("i", bytes(state)))
        return True


class Table:
    """Seats, and the memory under them."""

    def __init__(self, sequences: int, states: SavedStates) -> None:
        self.memory = LlamaMemory(sequences)
        self.seats = Seats(self.memory, sequences, states)

    def begin(self, prompt: Sequence[int]) -> tuple[int, int]:
        return self.seats.take(prompt)

    def read(self, prompt: Sequence[int], begun: tuple[int, int]) -> None:
        sequence, reused = begun
        self.memory.compute(sequence, prompt[reused:])
        self.seats.grow(sequence, prompt[reused:])

    def answered(self, prompt: Sequence[int]) -> None:
        begun = self.begin(prompt)
        self.read(prompt, begun)
        self.seats.leave(begun[0])


def test_a_beginning_is_that_of_its_own_conversation_though_the_next_order_takes_the_donors_place() -> None:
    first, second = [*SYSTEM, *range(2000, 3000)], [*range(5000, 5500)]
    states = SavedStates(1_000_000)
    states.save(second, state_of(second))
    table = Table(2, states)
    table.answered(first)

    # Both begin before anything is computed: one from the sequence of `first`, one from a saved state, in its place.
    prompts = [[*SYSTEM, 1], [*second, 2]]
    begun = [table.begin(prompt) for prompt in prompts]
    for prompt, each in zip(prompts, begun, strict=True):
        table.read(prompt, each)

    assert [reused for _, reused in begun] == [400, 500]
    assert [table.memory.cells[sequence] for sequence, _ in begun] == prompts


def test_whatever_begins_together_and_is_used_again_has_its_own_tokens() -> None:
    source = random.Random(5)  # noqa: S311 - a test
    table = Table(4, SavedStates(60_000))
    beginnings = [[1000 * n + place for place in range(100)] for n in range(6)]

    for _ in range(300):
        prompts = [
            [*source.choice(beginnings)[: source.randrange(20, 101)], *source.choices(range(50), k=80)]
            for _ in range(source.randrange(1, 5))
        ]
        begun = [table.begin(prompt) for prompt in prompts]
        for prompt, each in zip(prompts, begun, strict=True):
            # Some are canceled before anything of them is computed.
            if source.random() < 0.8:
                table.read(prompt, each)
                assert table.memory.cells[each[0]] == prompt
        for sequence, _ in begun:
            table.seats.leave(sequence)


def test_a_saved_state_is_put_back_although_it_makes_room_for_what_was_there() -> None:
    saved, resident = [*range(100)], [*range(5000, 5100)]
    states = SavedStates(600)
    states.save(saved, state_of(saved))
    table = Table(1, states)
    table.answered(resident)

    assert table.begin([*saved, 7]) == (0, 100)
    assert table.memory.cells[0] == saved
    assert states.best(resident) == tuple(resident)


@pytest.mark.parametrize(("limit", "saves"), [(0, 0), (1599, 0), (1600, 1)])
def test_a_state_that_may_not_be_kept_is_not_written_down(limit: int, saves: int) -> None:
    table = Table(1, SavedStates(limit))
    table.answered(SYSTEM)
    table.answered([*range(300)])

    assert table.memory.saves == saves
