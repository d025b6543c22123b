"""The sentences that answer a question best, out of the passages that were found for it. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import Stemmer

from services.llm.sentences import sentence_spans
from services.llm.stop_words import STOP_WORDS
from sluice.wire.completions import Passage

_MAX_QUOTES = 3
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)
_ASKS_FOR_DEFINITION = re.compile(
    r"\b(?:what(?:'s| is| are)|who is|define|что (?:такое|это|значит|означает)|кто такой)\b", re.IGNORECASE
)
_DEFINES = re.compile(
    r"\b(?:(?:is|are) (?:an?|the|called|known as|defined as)|means|refers to|stands for)\b"
    r"|\b(?:это|называ(?:ет|ют)ся|означа[ею]т|представля[ею]т собой)\b",
    re.IGNORECASE,
)
_ENDS_OPEN = re.compile(r"[:;,]$")
_ENDS_LIKE_A_SENTENCE = re.compile(r"[.!?…][\"'»”’)\]]*$")

# A sentence earns the share of the question that it covers, a part of what the heading above it covers, and a little
# for having the question's words side by side and early, near the top, in a passage that covers much of the question.
_WEIGHT_OF_HEADING = 0.6
_WEIGHT_OF_PAIRS = 0.25
_WEIGHT_OF_SUBJECT = 0.15
_WEIGHT_OF_PASSAGE = 0.3
_WEIGHT_OF_RANK = 0.15
_WEIGHT_OF_DEFINITION = 0.2
_SUBJECT_WORDS = 6
# Fragments (items of lists, cells of tables) say little by themselves and headings less; very long sentences say much
# besides.
_FRAGMENT_PENALTY = 0.5
_HEADING_PENALTY = 0.25
_SHORT_WORDS = 5
_HEADING_WORDS = 12
_LONG_WORDS = 60
# A further sentence must be nearly as good as the best one, and must not repeat what is quoted already.
_GOOD_ENOUGH = 0.65
_SAME_WORDS = 0.6


@dataclass(frozen=True)
class Quote:
    """A sentence exactly as it stands in a passage."""

    text: str
    passage_id: str


@dataclass(frozen=True)
class _Candidate:
    quote: Quote
    stems: list[str]
    rank: int
    begin: int
    score: float


class _Question:
    """What is asked, and how much each part of it weighs."""

    def __init__(self, question: str, asked: list[str], passages: Sequence[Sequence[str]]) -> None:
        self._asks_for_definition = bool(_ASKS_FOR_DEFINITION.search(question))
        frequency = Counter(stem for passage in passages for stem in set(passage))
        self._pairs = set(pairwise(asked))
        # A stem weighs more the fewer passages have it. What none has still weighs: it is a part left unanswered.
        self._weights = {stem: 1 + math.log((len(passages) + 1) / (frequency[stem] + 1)) for stem in asked}
        self._total = sum(self._weights.values())

    def covered(self, found: Iterable[str]) -> float:
        """The share of the question, by weight, that these stems cover."""
        return sum(self._weights[stem] for stem in self._weights.keys() & set(found)) / self._total

    def pairs(self, found: list[str]) -> float:
        """The share of the question's neighbouring words that are neighbours here too."""
        return len(self._pairs & set(pairwise(found))) / max(1, len(self._pairs))

    def bonus(self, text: str, found: list[str]) -> float:
        """What the form of the sentence adds: the question's words side by side, early, or defined."""
        early = self.covered(found[:_SUBJECT_WORDS])
        defines = early if self._asks_for_definition and _DEFINES.search(text) else 0.0
        return _WEIGHT_OF_PAIRS * self.pairs(found) + _WEIGHT_OF_SUBJECT * early + _WEIGHT_OF_DEFINITION * defines


def select_quotes(question: str, passages: Sequence[Passage]) -> list[Quote]:
    """Up to three sentences, best first, that support an answer; none if no passage has a word of the question."""
    asked = _asked_stems(question)
    if not asked:
        return []
    stems_of_passages = [stems(f"{p.title}\n{p.text}") for p in passages]
    about = _Question(question, asked, stems_of_passages)
    candidates = [
        candidate
        for rank, (passage, found) in enumerate(zip(passages, stems_of_passages, strict=True))
        for candidate in _candidates(about, passage, rank, about.covered(found))
    ]
    return [candidate.quote for candidate in _without_repetition(candidates)]


def stems(text: str) -> list[str]:
    """The stems of the words of a text, in order; Cyrillic words as Russian, all others as English."""
    return [_stem(word) for word in _WORD.findall(text.lower().replace("ё", "е"))]


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    stem: str = _STEMMERS["russian" if _CYRILLIC.search(word) else "english"].stemWord(word)
    return stem


_STEMMERS = {language: Stemmer.Stemmer(language) for language in ("english", "russian")}


def _asked_stems(question: str) -> list[str]:
    """What the question is about; all of its words if it has nothing but little ones."""
    words = _WORD.findall(question.lower().replace("ё", "е"))
    telling = [word for word in words if word not in STOP_WORDS]
    return list(dict.fromkeys(_stem(word) for word in telling or words))


def _candidates(about: _Question, passage: Passage, rank: int, passage_covers: float) -> Iterator[_Candidate]:
    context = _WEIGHT_OF_PASSAGE * passage_covers + _WEIGHT_OF_RANK / (rank + 1)
    heading, since_heading = stems(passage.title), 0
    for begin, end in sentence_spans(passage.text):
        text = passage.text[begin:end]
        found = stems(text)
        covers = about.covered(found)
        by_heading = _WEIGHT_OF_HEADING * (about.covered([*found, *heading]) - covers) / (1 + since_heading)
        support = covers + by_heading
        if support > 0:
            score = (support + about.bonus(text, found) + context * min(1.0, 2 * support)) * _form(text, len(found))
            yield _Candidate(Quote(text, passage.id), found, rank, begin, score)
        since_heading += 1
        if _is_heading(text, len(found)):
            heading, since_heading = found, 0


def _is_heading(text: str, words: int) -> bool:
    return words <= _HEADING_WORDS and not _ENDS_LIKE_A_SENTENCE.search(text) and not _ENDS_OPEN.search(text)


def _form(text: str, words: int) -> float:
    """How much the text looks like a sentence that one can quote: 0 to 1."""
    form = 1.0 if _ENDS_LIKE_A_SENTENCE.search(text) and words >= _SHORT_WORDS else _FRAGMENT_PENALTY
    if _is_heading(text, words):
        form = _HEADING_PENALTY
    # A question in a document asks what we are asked; it does not answer.
    if text.endswith("?"):
        form *= _FRAGMENT_PENALTY
    return form * min(1.0, math.sqrt(_LONG_WORDS / max(words, 1)))


def _without_repetition(candidates: list[_Candidate]) -> list[_Candidate]:
    """The best few that differ from one another; those of one passage in the order in which they stand there."""
    chosen: list[_Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (-c.score, c.rank, c.begin)):
        if len(chosen) == _MAX_QUOTES or (chosen and candidate.score < _GOOD_ENOUGH * chosen[0].score):
            break
        if all(_likeness(candidate.stems, other.stems) < _SAME_WORDS for other in chosen):
            chosen.append(candidate)
    order = list(dict.fromkeys(c.rank for c in chosen))
    return sorted(chosen, key=lambda c: (order.index(c.rank), c.begin))


def _likeness(some: list[str], others: list[str]) -> float:
    """The share of the shorter sentence's stems that the other has too."""
    a, b = set(some), set(others)
    return len(a & b) / max(1, min(len(a), len(b)))
