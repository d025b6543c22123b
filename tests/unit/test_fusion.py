"""Making one ranking of several."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.retrieval.fusion import marginal_relevance, normalized_sum, reciprocal_rank, voters, weights_for

A, B, C, D = (UUID(int=n) for n in range(1, 5))
EVEN = {"dense": 0.5, "words": 0.5}

rankings = st.dictionaries(
    st.sampled_from(["dense", "words", "grams"]),
    st.dictionaries(st.sampled_from([A, B, C, D]), st.floats(-1e6, 1e6)).map(
        lambda scores: sorted(scores.items(), key=lambda pair: -pair[1])
    ),
)


def test_a_model_that_does_not_read_the_language_does_not_outvote_the_words() -> None:
    reads, does_not = weights_for("en", {"dense": ["en"]}), weights_for("ru", {"dense": ["en"]})

    assert reads["dense"] >= reads["words"]
    assert does_not["dense"] < does_not["words"]
    for weights in (reads, does_not):
        assert sum(weights.values()) == pytest.approx(1)
        assert weights.keys() == {"dense", "words", "grams"}


def test_models_that_read_the_language_share_the_weight_of_meaning_and_the_others_have_none() -> None:
    read_by = {"dense": ["en"], "dense:fast": ["en"], "dense:world": ["en", "ru"]}

    english, russian, german = (weights_for(language, read_by) for language in ("en", "ru", "de"))

    assert english == pytest.approx({"words": 0.25, "grams": 0.25} | dict.fromkeys(read_by, 0.5 / 3))
    assert russian == pytest.approx({"words": 0.25, "grams": 0.25, "dense:world": 0.5})
    assert german == pytest.approx({"words": 0.4, "grams": 0.4} | dict.fromkeys(read_by, 0.2 / 3))


def test_ranks_of_a_model_that_does_not_read_the_language_are_no_vote() -> None:
    legs = {"dense": [(A, 0.9)], "dense:world": [(B, 0.8)], "words": [(C, 9.0)]}
    read_by = {"dense": ["en"], "dense:world": ["en", "ru"]}

    assert voters(legs, "en", read_by) == legs
    assert voters(legs, "ru", read_by).keys() == {"dense:world", "words"}
    assert voters(legs, "de", read_by).keys() == {"words"}
    assert voters({"dense": [(A, 0.9)]}, "de", read_by) == {"dense": [(A, 0.9)]}


def test_legs_of_different_scales_count_by_their_weights_alone() -> None:
    legs = {"dense": [(A, 0.9), (B, 0.1)], "words": [(B, 900.0), (A, 100.0)]}

    assert normalized_sum(legs, {"dense": 0.6, "words": 0.4}) == [(A, 0.6), (B, 0.4)]
    assert normalized_sum(legs, {"dense": 0.4, "words": 0.6}) == [(B, 0.6), (A, 0.4)]


def test_what_both_legs_find_comes_before_what_one_finds() -> None:
    legs = {"dense": [(A, 0.9), (B, 0.8), (C, 0.1)], "words": [(B, 9.0), (D, 1.0)]}

    assert normalized_sum(legs, EVEN)[0][0] == B
    assert reciprocal_rank(legs)[0][0] == B


def test_a_single_hit_of_a_leg_counts_in_full() -> None:
    assert normalized_sum({"words": [(A, 0.01)]}, EVEN) == [(A, 0.5)]


def test_a_leg_without_a_weight_adds_its_hits_at_the_end() -> None:
    assert normalized_sum({"dense": [(A, 1.0)], "new": [(B, 1.0)]}, EVEN) == [(A, 0.5), (B, 0.0)]


def test_ranks_are_fused_as_the_paper_says() -> None:
    fused = dict(reciprocal_rank({"dense": [(A, 5.0), (B, 4.0)], "words": [(B, 0.2)]}))

    assert fused == {A: pytest.approx(1 / 61), B: pytest.approx(1 / 62 + 1 / 61)}


@given(rankings)
def test_fusion_loses_nothing_adds_nothing_and_does_not_depend_on_the_order_of_the_legs(
    legs: dict[str, list[tuple[UUID, float]]],
) -> None:
    expected = {item for ranking in legs.values() for item, _ in ranking}
    turned = dict(reversed(legs.items()))

    for fuse in (lambda of: normalized_sum(of, EVEN), reciprocal_rank):
        fused = fuse(legs)
        assert len(fused) == len(expected)
        assert {item for item, _ in fused} == expected
        assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
        assert dict(fuse(turned)) == pytest.approx(dict(fused))


def test_equal_scores_are_always_in_the_same_order() -> None:
    assert normalized_sum({"dense": [(B, 1.0), (A, 1.0)]}, EVEN) == [(A, 0.5), (B, 0.5)]


def test_nothing_fused_is_nothing() -> None:
    assert normalized_sum({}, EVEN) == normalized_sum({"dense": []}, EVEN) == reciprocal_rank({}) == []


def test_a_passage_that_repeats_the_first_gives_way_to_another() -> None:
    ranking = [(A, 1.0), (B, 0.95), (C, 0.5), (D, 0.0)]
    vectors = {A: [1.0, 0.0], B: [1.0, 0.0], C: [0.0, 1.0], D: [0.6, 0.8]}

    assert [item for item, _ in marginal_relevance(ranking, vectors, 2, relevance=0.5)] == [A, C]
    assert marginal_relevance(ranking, vectors, 4, relevance=1.0) == ranking


def test_a_passage_without_a_vector_repeats_nothing() -> None:
    thinned = marginal_relevance([(A, 1.0), (B, 0.9), (C, 0.8)], {A: [1.0], B: [1.0]}, 3, relevance=0.5)

    assert [item for item, _ in thinned] == [A, C, B]


def test_thinning_keeps_scores_and_gives_no_more_than_there_is() -> None:
    ranking = [(A, 3.0), (B, 2.0)]

    assert sorted(marginal_relevance(ranking, {}, 10)) == sorted(ranking)
    assert marginal_relevance(ranking, {}, 1) == [(A, 3.0)]
    assert marginal_relevance([], {}, 5) == []
