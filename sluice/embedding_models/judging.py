"""Whether another form of a network is as good as the original: on its vectors, and on what they find. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sluice.embedding_models.layout import Quality

Vectors = NDArray[np.float32]

NEAREST: Final = 10
LEAST_COSINE_P5: Final = 0.99
MOST_RECALL_LOST: Final = 0.01

_FIRST_SENTENCE = re.compile(r"(.{15,300}?[.!?:;])\s+(.{40,})", re.DOTALL)


def questions_and_passages(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts of several sentences, as questions (the first one) and the passages that they are to find (the rest)."""
    parts = [found.groups() for text in texts if (found := _FIRST_SENTENCE.match(text))]
    return [question for question, _ in parts], [passage for _, passage in parts]


def recall(questions: Vectors, passages: Vectors, nearest: int = NEAREST) -> float:
    """Share of questions whose own passage (the one in the same row) is among the nearest ones."""
    scores = questions @ passages.T
    better = (scores > np.diagonal(scores)[:, None]).sum(axis=1)
    return float((better < nearest).mean())


def quality(ours: tuple[Vectors, Vectors], original: tuple[Vectors, Vectors]) -> Quality:
    """How (questions, passages) of a form compare with the original's."""
    cosines = (np.vstack(ours) * np.vstack(original)).sum(axis=1)
    return Quality(
        cosine_mean=round(float(cosines.mean()), 5),
        cosine_p5=round(float(np.percentile(cosines, 5)), 5),
        recall_at_10=round(recall(*ours), 4),
    )


def shortfall(found: Quality, original: Quality) -> str | None:
    """Why a form is not good enough, with figures; None if it is."""
    if found.cosine_p5 < LEAST_COSINE_P5:
        return (
            f"a twentieth of its vectors have a cosine below {found.cosine_p5:.4f} to the original's "
            f"(at least {LEAST_COSINE_P5} is accepted; mean {found.cosine_mean:.4f})"
        )
    lost = original.recall_at_10 - found.recall_at_10
    if lost > MOST_RECALL_LOST:
        return (
            f"it finds {found.recall_at_10:.1%} of the passages among the first {NEAREST}, the original "
            f"{original.recall_at_10:.1%} (at most {MOST_RECALL_LOST:.0%} may be lost)"
        )
    return None
