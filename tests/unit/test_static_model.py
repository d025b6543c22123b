"""Vectors of texts as means of their tokens' vectors."""

from __future__ import annotations

import numpy as np

from sluice.embedding_models.static_model import (
    frequency_ranks,
    mean_vectors,
    principal,
    weighted,
    without_common,
)
from sluice.embedding_models.tokenizing import TokenizedText

TABLE = np.array([[0, 0], [3, 0], [0, 4]], dtype=np.float32)


def text(*tokens: int) -> TokenizedText:
    return TokenizedText(list(tokens), truncated=False)


def test_a_text_is_the_direction_of_the_mean_of_its_tokens() -> None:
    np.testing.assert_allclose(mean_vectors(TABLE, [text(1, 2), text(1, 1, 0)]), [[0.6, 0.8], [1, 0]], atol=1e-6)


def test_a_text_without_a_known_token_has_a_vector_of_unit_length_too() -> None:
    assert np.linalg.norm(mean_vectors(TABLE, [text(0)])) == 1


def test_a_vector_does_not_depend_on_the_other_texts() -> None:
    together = mean_vectors(TABLE, [text(1, 2), text(2), text(0)])
    np.testing.assert_array_equal(together[0], mean_vectors(TABLE, [text(1, 2)])[0])


def test_words_are_ranked_in_the_order_of_the_vocabulary_and_characters_count_as_frequent() -> None:
    tokens = ["[PAD]", "[unused1]", "!", "a", "the", "##ing", "lock", "sluice"]

    assert frequency_ranks(tokens).tolist() == [1, 1, 1, 1, 1, 2, 3, 4]


def test_frequent_tokens_weigh_less_and_special_ones_nothing() -> None:
    lengths = np.linalg.norm(weighted(np.ones((4, 3), dtype=np.float32), np.array([1, 1, 2, 30]), {0}), axis=1)

    assert lengths[0] == 0
    assert lengths[1] < lengths[2] < lengths[3]


def test_the_principal_axes_keep_what_differs_most() -> None:
    chance = np.random.default_rng(1)
    spread = chance.normal(size=(500, 3)).astype(np.float32) * np.array([0.1, 10, 1], dtype=np.float32)

    assert principal(spread, 2).std(axis=0).round().tolist() == [10, 1]


def test_what_all_texts_have_in_common_is_taken_out_and_what_tells_them_apart_stays() -> None:
    texts = np.array([[5, 1, 0, 0], [5, -1, 0, 0], [5, 0, 1, 0]], dtype=np.float32)

    left = without_common(texts, texts, 1)

    np.testing.assert_allclose(left[:, 0], 0, atol=0.1)
    np.testing.assert_allclose(left[:, 1], [1, -1, 0], atol=0.1)
