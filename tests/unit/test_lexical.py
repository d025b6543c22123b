from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.retrieval.lexical import Sparse, document_vector, gram_coverage, query_vector, words_of


def score(question: str, text: str) -> float:
    return dot(query_vector(question).words, document_vector(text).words)


def gram_score(question: str, text: str) -> float:
    return dot(query_vector(question).grams, document_vector(text).grams)


def dot(left: Sparse, right: Sparse) -> float:
    weights = dict(zip(right.indices, right.values, strict=True))
    return sum(value * weights.get(token, 0.0) for token, value in zip(left.indices, left.values, strict=True))


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("maintainers", "the maintainer of a package"),
        ("installing packages", "how to install a package"),
        ("отчёты об ошибках", "отчет об ошибке в пакете"),
        ("Сопровождающего", "сопровождающий пакета"),
        ("DPKG", "call dpkg first"),
    ],
)
def test_a_question_finds_other_forms_of_its_words(question: str, text: str) -> None:
    assert score(question, text) > 0


def test_unrelated_texts_have_nothing_in_common() -> None:
    assert score("orphaned packages", "the weather in Moscow") == 0


def test_a_misspelt_word_is_found_by_its_grams_only() -> None:
    assert score("maintaner", "the maintainer of a package") == 0
    assert gram_score("maintaner", "the maintainer of a package") > 0


def test_a_word_counts_more_the_oftener_it_occurs_but_ever_less_so() -> None:
    once, twice, thrice = (score("lock", "lock " * n + "door " * (10 - n)) for n in (1, 2, 3))

    assert once < twice < thrice
    assert thrice - twice < twice - once


def test_the_same_word_counts_less_in_a_longer_text() -> None:
    assert score("lock", "lock door") > score("lock", "lock door " + "wall " * 300)


def test_function_words_do_not_decide_what_a_question_finds() -> None:
    assert words_of("What is the policy of Debian?") == ["policy", "debian"]
    assert score("what is a lock", "what is a key") == 0


def test_a_question_of_function_words_alone_is_still_asked() -> None:
    assert query_vector("to be or not to be").words.indices


def test_the_share_of_a_questions_grams_in_a_text_is_told() -> None:
    assert gram_coverage("virtual package", "A virtual package is provided by others.") == 1.0
    assert gram_coverage("virtual package", "zzz") == 0.0


@given(st.text())
def test_vectors_are_what_the_index_takes(text: str) -> None:
    vectors = document_vector(text)

    for sparse in (vectors.words, vectors.grams, query_vector(text).words):
        assert list(sparse.indices) == sorted(set(sparse.indices))
        assert all(0 <= index < 2**32 for index in sparse.indices)
        assert all(value > 0 for value in sparse.values)
        assert len(sparse.indices) == len(sparse.values)
