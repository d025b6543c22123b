"""When a form of a model is good enough."""

from __future__ import annotations

import numpy as np
import pytest

from sluice.embedding_models.judging import Vectors, quality, questions_and_passages, recall, shortfall

RANDOM = np.random.default_rng(3)


def unit(vectors: Vectors) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


QUESTIONS = unit(RANDOM.normal(size=(100, 16)))
PASSAGES = unit(QUESTIONS + 0.6 * RANDOM.normal(size=(100, 16)))
ORIGINAL = quality((QUESTIONS, PASSAGES), (QUESTIONS, PASSAGES))


def noisy(vectors: Vectors, noise: float) -> Vectors:
    return unit(vectors + noise * RANDOM.normal(size=vectors.shape))


def test_recall_counts_the_questions_whose_passage_is_among_the_nearest() -> None:
    eye = np.eye(20, dtype=np.float32)
    assert recall(eye, eye) == 1.0
    assert recall(eye, np.roll(eye, 1, axis=0) + 0.5 * eye, nearest=1) == 0.0
    assert recall(eye, np.roll(eye, 1, axis=0) + 0.5 * eye, nearest=2) == 1.0


def test_the_original_is_good_enough() -> None:
    assert ORIGINAL.cosine_p5 == pytest.approx(1.0, abs=1e-4)
    assert shortfall(ORIGINAL, ORIGINAL) is None


def test_vectors_that_point_elsewhere_are_refused_with_figures() -> None:
    found = quality((noisy(QUESTIONS, 0.1), noisy(PASSAGES, 0.1)), (QUESTIONS, PASSAGES))
    reason = shortfall(found, ORIGINAL)

    assert reason is not None
    assert f"{found.cosine_p5:.4f}" in reason


def test_vectors_that_find_less_are_refused_although_they_are_near() -> None:
    worse = ORIGINAL.model_copy(update={"recall_at_10": ORIGINAL.recall_at_10 - 0.02})
    reason = shortfall(worse, ORIGINAL)

    assert reason is not None
    assert f"{worse.recall_at_10:.1%}" in reason


def test_the_first_sentence_is_the_question_and_the_rest_its_passage() -> None:
    text = "What is a virtual package? It is a name that several packages provide, so that others can ask for it."
    assert questions_and_passages([text, "One sentence only."]) == (
        ["What is a virtual package?"],
        ["It is a name that several packages provide, so that others can ask for it."],
    )
