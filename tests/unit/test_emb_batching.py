"""Which texts share a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakSet

from hypothesis import given
from hypothesis import strategies as st

from services.emb.batching import WaitingText, WaitingTexts
from sluice.embedding_models.shapes import most_texts, rows_for, width_for
from sluice.wire.embeddings import InputType


@dataclass(eq=False)
class Caller:
    wanted: bool = True
    lane: str = "model"


def texts(caller: Caller, *lengths: int, input_type: InputType = "document") -> list[WaitingText[Caller]]:
    return [WaitingText(caller, index, length, input_type) for index, length in enumerate(lengths)]


def lengths(batch: list[WaitingText[Caller]]) -> list[int]:
    return [text.tokens for text in batch]


def test_a_request_leaves_in_batches_of_nearly_equal_lengths_longest_first() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(), 10, 100, 12, 98, 11, 99), now=0)

    assert lengths(waiting.take(lambda _: 400)) == [100, 99, 98]
    assert lengths(waiting.take(lambda _: 400)) == [12, 11, 10]
    assert waiting.take(lambda _: 400) == []


def test_the_oldest_request_goes_first_and_younger_ones_of_its_length_ride_along() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    old, young = Caller(), Caller()
    waiting.add(texts(old, 20), now=0)
    waiting.add(texts(young, 200, 21), now=1)

    assert [(t.owner is old, t.tokens) for t in waiting.take(lambda _: 64)] == [(True, 20), (False, 21)]


def test_a_query_overtakes_documents_however_long_they_have_waited() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(), 30, 30), now=0)
    waiting.add(texts(Caller(), 8, input_type="query"), now=60)

    assert [t.input_type for t in waiting.take(lambda _: 2048)] == ["query"]
    assert lengths(waiting.take(lambda _: 2048)) == [30, 30]


def test_queries_and_documents_have_every_other_pass_while_both_wait() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(), *[200] * 4), now=0)
    for now in range(1, 5):
        waiting.add(texts(Caller(), 200, input_type="query"), now=now)

    taken = [text.input_type for _ in range(8) for text in waiting.take(lambda _: 256)]
    assert taken == ["query", "document"] * 4


def test_a_long_list_and_a_shorter_one_that_comes_later_take_turns() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    long, short = Caller(), Caller()
    waiting.add(texts(long, *[256] * 400), now=0)
    waiting.add(texts(short, *[60] * 4), now=0.1)

    passes = [[text.owner is short for text in waiting.take(lambda _: 1024)] for _ in range(20)]
    assert not any(passes[0])
    assert sum(map(sum, passes)) == 4


def test_a_long_list_takes_turns_until_its_end_however_slow_the_model_is() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(), *[256] * 800), now=0, tokens_per_second=5_000)
    clock = 0.0
    while clock < 13:
        clock += sum(lengths(waiting.take(lambda _: 1024))) / 5_000
    other = Caller()
    waiting.add(texts(other, 60), now=clock, tokens_per_second=5_000)

    passes = [[text.owner is other for text in waiting.take(lambda _: 1024)] for _ in range(3)]
    assert sum(map(sum, passes)) == 1


def test_texts_for_different_models_never_share_a_pass() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(lane="one"), 20, 20), now=0)
    waiting.add(texts(Caller(lane="other"), 20, 20), now=0)

    assert [{text.owner.lane for text in waiting.take(lambda _: 1024)} for _ in range(2)] == [{"one"}, {"other"}]


def test_texts_that_nobody_waits_for_are_not_taken() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    gone, there = Caller(), Caller()
    waiting.add(texts(gone, 20, 20), now=0)
    waiting.add(texts(there, 20), now=1)
    gone.wanted = False

    assert [t.owner for t in waiting.take(lambda _: 2048)] == [there]


def test_a_text_above_the_budget_goes_alone() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(), 512, 500), now=0)

    assert lengths(waiting.take(lambda _: 100)) == [512]
    assert lengths(waiting.take(lambda _: 100)) == [500]


def test_a_short_text_is_not_padded_to_several_times_its_length() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    waiting.add(texts(Caller(), 250, 40), now=0)

    assert lengths(waiting.take(lambda _: 2048)) == [250]


def test_texts_that_were_taken_or_given_up_are_let_go_while_others_wait() -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    callers: WeakSet[Caller] = WeakSet()
    for number in range(10_000):
        takes, leaves = Caller(), Caller()
        callers |= {takes, leaves}
        # One that waits fills a pass by itself, and nobody is near the length of the one that is given up.
        waiting.add(texts(takes, 512), now=number)
        waiting.add(texts(leaves, 100, 10), now=number + 1e6)
        leaves.wanted = False
        if number:
            assert lengths(waiting.take(lambda _: 100)) == [512]

    assert len(callers) < 1_000


@given(st.lists(st.lists(st.integers(1, 512), min_size=1, max_size=20), max_size=20), st.integers(1, 4096))
def test_every_text_leaves_once_and_no_batch_passes_the_budget(requests: list[list[int]], budget: int) -> None:
    waiting: WaitingTexts[Caller] = WaitingTexts()
    added = [texts(Caller(), *request) for request in requests]
    for now, request in enumerate(added):
        waiting.add(request, now=now)

    taken: list[WaitingText[Caller]] = []
    while batch := waiting.take(lambda _: budget):
        assert len(batch) == 1 or width_for(max(lengths(batch))) * rows_for(len(batch)) <= budget
        taken += batch

    assert sorted(map(id, taken)) == sorted(id(text) for request in added for text in request)


@given(st.integers(1, 9000), st.integers(1, 20_000))
def test_a_full_batch_has_no_empty_row_and_keeps_its_budget(tokens: int, budget: int) -> None:
    texts = most_texts(budget, tokens)

    assert width_for(tokens) >= tokens
    assert texts == 0 or rows_for(texts) == texts
    assert texts * width_for(tokens) <= budget
