"""One question -> passages: legs side by side, fused, and read from PostgreSQL."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from prometheus_client import Histogram
from sqlalchemy.orm import Session

from sluice.db.session import Sessions, tenant_session
from sluice.documents import repository
from sluice.documents.languages import detect
from sluice.embedding_client import EmbeddingClient
from sluice.errors import TemporarilyUnavailable
from sluice.retrieval import fusion, lexical, passages
from sluice.retrieval.fusion import Ranking
from sluice.retrieval.passages import Passage
from sluice.settings import EmbeddingClientSettings, RetrievalSettings
from sluice.vector_index import VectorIndex
from sluice.vector_points import DenseCollection, Hit, PassageFilter

T = TypeVar("T")

# A question whose 4-grams are half found in a passage is taken to be about it, misspelt or inflected as it may be.
_GRAM_COVERAGE: Final = 0.5
# Read from PostgreSQL for each passage wanted: some hits belong to versions that are no longer shown.
_SPARE: Final = 4
# Searches of which every leg can run at once.
_SEARCHES: Final = 4

leg_duration = Histogram(
    "sluice_retrieval_duration_seconds",
    "Time of each leg of a search",
    ["leg"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)


class Fusion(StrEnum):
    """How the legs' rankings become one."""

    SUM = "sum"  # normalized scores, weighted by what the dense models can read
    RRF = "rrf"  # ranks only


@dataclass(frozen=True)
class Question:
    """What somebody wants to know, and where to look."""

    text: str
    within: PassageFilter = PassageFilter()
    limit: int = 10
    # None: as suits the embedding models: SUM for one; for several RRF, of those that read the question's language.
    fusion: Fusion | None = None
    diverse: bool = False


@dataclass(frozen=True)
class Found:
    """Passages, best first, and how they were found."""

    passages: list[Passage]
    lang: str
    # Legs that were away ("dense", "dense:<alias>", "lexical"), or "vector_index" when none could run: worse results.
    degraded: list[str] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Legs:
    rankings: dict[str, list[tuple[UUID, float]]]
    degraded: list[str]
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class DenseLeg:
    """The search by meaning in the index of one embedding alias."""

    name: str
    alias: str
    embedder: EmbeddingClient
    languages: Sequence[str]
    """ISO 639-1, of those that the model reads well."""
    min_similarity: float
    """Cosine from which a passage counts as relevant although it shares no word."""


def dense_legs(
    embedders: Mapping[str, EmbeddingClient], embedding: EmbeddingClientSettings, settings: RetrievalSettings
) -> list[DenseLeg]:
    """A leg for each alias that documents are indexed under; the default one's is plainly `dense`."""
    default = DenseLeg(
        "dense", embedding.alias, embedders[embedding.alias], embedding.languages, settings.min_similarity
    )
    further = (
        DenseLeg(f"dense:{alias}", alias, embedders[alias], model.languages, model.min_similarity)
        for alias, model in embedding.more_aliases.items()
    )
    return [default, *further]


class Search:
    """Finds passages for the questions of any tenant."""

    def __init__(
        self, sessions: Sessions, index: VectorIndex, dense: Sequence[DenseLeg], settings: RetrievalSettings
    ) -> None:
        """`dense`: a leg for each embedding alias, the default one's first."""
        self._sessions = sessions
        self._index = index
        self._dense_legs = {leg.name: leg for leg in dense}
        self._settings = settings
        legs = len(dense) + 1
        self._threads = ThreadPoolExecutor(max_workers=_SEARCHES * legs, thread_name_prefix="leg")

    def close(self) -> None:
        """Wait for the legs that are running."""
        self._threads.shutdown()

    def check(self, session: Session, within: PassageFilter) -> None:
        """Raise `SourceNotFound` when the filter names a source that the session's tenant does not have."""
        for source_id in within.source_ids:
            repository.get_source(session, source_id)

    def find(self, tenant_id: UUID, question: Question) -> Found:
        """The passages that bear on the question, at most `question.limit`; none is an answer too."""
        started = time.perf_counter()
        with tenant_session(self._sessions, tenant_id) as session:
            self.check(session, question.within)
        lang = detect(question.text)
        legs = self._run_legs(tenant_id, question)
        if not legs.rankings:
            found = self._by_full_text(tenant_id, question)
            legs = replace(legs, degraded=["vector_index"])
        else:
            found = self._fused(tenant_id, question, lang, legs)
        milliseconds = {**legs.milliseconds, "total": _since(started)}
        return Found(found, lang, legs.degraded, milliseconds)

    def _run_legs(self, tenant_id: UUID, question: Question) -> _Legs:
        milliseconds: dict[str, float] = {}
        dense = {
            name: self._start(milliseconds, name, partial(self._dense, leg, tenant_id, question))
            for name, leg in self._dense_legs.items()
        }
        sparse = self._start(milliseconds, "lexical", lambda: self._lexical(tenant_id, question))
        rankings: dict[str, list[tuple[UUID, float]]] = {}
        degraded: list[str] = []
        try:
            words, grams = sparse.result()
            rankings.update(words=_ranking(words), grams=_ranking(grams))
        except TemporarilyUnavailable:
            degraded.append("lexical")
        for name, hits in dense.items():
            try:
                rankings[name] = _ranking(hits.result())
            except TemporarilyUnavailable:
                degraded.append(name)
        return _Legs(rankings, degraded, milliseconds)

    def _start(self, milliseconds: dict[str, float], leg: str, run: Callable[[], T]) -> Future[T]:
        def timed() -> T:
            started = time.perf_counter()
            with leg_duration.labels(leg).time():
                result = run()
            milliseconds[leg] = _since(started)
            return result

        # The request id travels with the context, into the thread and from there to EMB.
        return self._threads.submit(contextvars.copy_context().run, timed)

    def _dense(self, leg: DenseLeg, tenant_id: UUID, question: Question) -> list[Hit]:
        embedded = leg.embedder.embed([question.text], input_type="query")
        (vector,) = embedded.vectors
        # What another model has embedded cannot be compared; until it is indexed again, it is found by its words.
        dense = DenseCollection(leg.alias, embedded.model_version, len(vector))
        return self._index.search_dense(tenant_id, dense, vector, question.within, self._settings.candidates)

    def _lexical(self, tenant_id: UUID, question: Question) -> tuple[list[Hit], list[Hit]]:
        vectors = lexical.query_vector(question.text)
        if not vectors.words.indices:
            return [], []
        return self._index.search_lexical(
            tenant_id, vectors.words, vectors.grams, question.within, self._settings.candidates
        )

    def _by_full_text(self, tenant_id: UUID, question: Question) -> list[Passage]:
        with leg_duration.labels("full_text").time(), tenant_session(self._sessions, tenant_id) as session:
            return passages.full_text(session, question.text, question.within, question.limit)

    def _fused(self, tenant_id: UUID, question: Question, lang: str, legs: _Legs) -> list[Passage]:
        ranking = self._fused_ranking(question, lang, legs.rankings)
        score_of = {leg: dict(ranked) for leg, ranked in legs.rankings.items()}
        wanted = ranking[: question.limit * _SPARE + _SPARE]
        with tenant_session(self._sessions, tenant_id) as session:
            visible = passages.read(session, [chunk_id for chunk_id, _ in wanted])
            scored = [
                replace(
                    visible[chunk_id],
                    score=score,
                    scores={leg: scores[chunk_id] for leg, scores in score_of.items() if chunk_id in scores},
                )
                for chunk_id, score in wanted
                if chunk_id in visible
            ]
            relevant = [passage for passage in scored if self._bears_on(question.text, lang, passage)]
            if question.diverse and (leg := self._first_of(legs)):
                vectors = passages.vectors(session, relevant, leg.embedder.model().version)
                relevant = _thinned(relevant, vectors, question.limit)
        return relevant[: question.limit]

    def _fused_ranking(self, question: Question, lang: str, rankings: Mapping[str, Ranking]) -> Ranking:
        read_by = {name: leg.languages for name, leg in self._dense_legs.items()}
        if question.fusion is Fusion.RRF:
            return fusion.reciprocal_rank(rankings)
        if question.fusion is Fusion.SUM or len(self._dense_legs) == 1:
            return fusion.normalized_sum(rankings, fusion.weights_for(lang, read_by))
        # Scores of several models have no common scale.
        return fusion.reciprocal_rank(fusion.voters(rankings, lang, read_by))

    def _first_of(self, legs: _Legs) -> DenseLeg | None:
        """The first of the dense legs that could run."""
        return next((leg for name, leg in self._dense_legs.items() if name in legs.rankings), None)

    def _bears_on(self, question: str, lang: str, passage: Passage) -> bool:
        """Whether anything but being the least far away speaks for the passage: every vector has a nearest one."""
        if "words" in passage.scores:
            return True
        for name, leg in self._dense_legs.items():
            if lang in leg.languages and passage.scores.get(name, -1.0) >= leg.min_similarity:
                return True
        return lexical.gram_coverage(question, passage.text) >= _GRAM_COVERAGE


def _thinned(relevant: list[Passage], vectors: Mapping[UUID, Sequence[float]], limit: int) -> list[Passage]:
    by_id = {passage.chunk_id: passage for passage in relevant}
    ranking = [(passage.chunk_id, passage.score) for passage in relevant]
    return [by_id[chunk_id] for chunk_id, _ in fusion.marginal_relevance(ranking, vectors, limit)]


def _ranking(hits: list[Hit]) -> list[tuple[UUID, float]]:
    return [(hit.chunk_id, hit.score) for hit in hits]


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
