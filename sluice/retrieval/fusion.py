"""Making one ranking of several: pure functions of ids and scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

Ranking = Sequence[tuple[UUID, float]]

RRF_K: Final = 60
# Of all dense legs together, if any of their models reads the language of the question.
_DENSE_READS: Final = 0.5
_DENSE_DOES_NOT_READ: Final = 0.2


def weights_for(language: str, read_by: Mapping[str, Sequence[str]]) -> Mapping[str, float]:
    """How much each leg counts: a model that cannot read the question's language must not outvote the words.

    `read_by`: the languages that the model of each dense leg reads. Models that read the question's share the weight of
    meaning; where none does, all of them share less. Measured with one model on English and Russian package
    descriptions; `docs/decisions/0006` has the table.
    """
    readers = [leg for leg, languages in read_by.items() if language in languages]
    dense = _DENSE_READS if readers else _DENSE_DOES_NOT_READ
    sharing = readers or list(read_by)
    words = (1 - dense) / 2
    return {"words": words, "grams": words, **{leg: dense / len(sharing) for leg in sharing}}


def voters(legs: Mapping[str, Ranking], language: str, read_by: Mapping[str, Sequence[str]]) -> Mapping[str, Ranking]:
    """The legs whose ranks mean something for a question in this language: ranks say nothing of how sure a leg is.

    `read_by`: the languages that the model of each dense leg reads. All legs, should no other have run.
    """
    return {leg: found for leg, found in legs.items() if language in read_by.get(leg, (language,))} or legs


def normalized_sum(legs: Mapping[str, Ranking], weights: Mapping[str, float]) -> list[tuple[UUID, float]]:
    """Weighted sum of the legs' scores, each leg's scaled to 0..1 (min-max); best first, ties by id."""
    total: defaultdict[UUID, float] = defaultdict(float)
    for leg, ranking in legs.items():
        for item, score in _scaled(ranking):
            total[item] += weights.get(leg, 0.0) * score
    return _ordered(total)


def reciprocal_rank(legs: Mapping[str, Ranking], k: int = RRF_K) -> list[tuple[UUID, float]]:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009); best first, ties by id."""
    total: defaultdict[UUID, float] = defaultdict(float)
    for ranking in legs.values():
        for rank, (item, _) in enumerate(ranking, start=1):
            total[item] += 1.0 / (k + rank)
    return _ordered(total)


def marginal_relevance(
    ranking: Ranking, vectors: Mapping[UUID, Sequence[float]], limit: int, relevance: float = 0.7
) -> list[tuple[UUID, float]]:
    """The ranking, thinned of repetition (MMR; Carbonell and Goldstein, SIGIR 1998).

    `relevance` is lambda: 1 leaves the ranking as it is. Vectors are of unit length; an item without one is taken
    to repeat nothing.
    """
    pool = dict(_scaled(ranking))
    score_of = dict(ranking)
    chosen: list[UUID] = []
    while pool and len(chosen) < limit:
        best = max(
            pool,
            key=lambda item: (relevance * pool[item] - (1 - relevance) * _nearest(item, chosen, vectors), str(item)),
        )
        chosen.append(best)
        del pool[best]
    return [(item, score_of[item]) for item in chosen]


def _nearest(item: UUID, chosen: Sequence[UUID], vectors: Mapping[UUID, Sequence[float]]) -> float:
    mine = vectors.get(item)
    if mine is None:
        return 0.0
    others = (vectors[other] for other in chosen if other in vectors)
    return max((sum(a * b for a, b in zip(mine, other, strict=True)) for other in others), default=0.0)


def _scaled(ranking: Ranking) -> list[tuple[UUID, float]]:
    if not ranking:
        return []
    low = min(score for _, score in ranking)
    high = max(score for _, score in ranking)
    if high == low:
        return [(item, 1.0) for item, _ in ranking]
    return [(item, (score - low) / (high - low)) for item, score in ranking]


def _ordered(total: Mapping[UUID, float]) -> list[tuple[UUID, float]]:
    return sorted(total.items(), key=lambda pair: (-pair[1], str(pair[0])))
