"""Text as sparse vectors: stemmed words and character 4-grams, to be scored as BM25 under an IDF modifier.

A document's weights are the term-frequency part of BM25, a question's are 1, and the index multiplies by the inverse
document frequency, so that their product is the BM25 score.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Final
from zlib import crc32

import Stemmer

if TYPE_CHECKING:
    from collections.abc import Iterable

# Part of the name of the lexical collection: raise it when the same text would give another vector.
TOKENIZER_VERSION: Final = "1"

_K1: Final = 1.2
_B: Final = 0.75
# BM25 wants the average length of all documents, which nobody knows while documents stream in and leave. A constant
# near the truth does as well: it only decides how strongly length counts, and all lengths are measured against it.
_AVERAGE_WORDS: Final = 100
_AVERAGE_GRAMS: Final = 450

_GRAM: Final = 4
_WORD: Final = re.compile(r"[^\W_]+")
_CYRILLIC: Final = re.compile(r"[\u0400-\u052f]")
_CACHED_WORDS: Final = 1 << 16
_LONGEST_WORD: Final = 64  # the rest of a longer one is noise: base64, hashes, run-together text


@dataclass(frozen=True, slots=True)
class Sparse:
    """A sparse vector: ascending 32-bit token ids and the weight of each."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LexicalVectors:
    """The two vectors of one text."""

    words: Sparse
    grams: Sparse


def document_vector(text: str) -> LexicalVectors:
    """The vectors of a passage; ids that collide share their occurrences."""
    words = _words(text)
    return LexicalVectors(
        words=_saturated(Counter(map(_word_id, words)), _AVERAGE_WORDS),
        grams=_saturated(Counter(gram for word in words for gram in _gram_ids(word)), _AVERAGE_GRAMS),
    )


def query_vector(text: str) -> LexicalVectors:
    """The vectors of a question: each word and gram once, function words left out unless there is nothing else."""
    telling = words_of(text)
    return LexicalVectors(
        words=_presence(map(_word_id, telling)),
        grams=_presence(gram for word in telling for gram in _gram_ids(word)),
    )


def words_of(question: str) -> list[str]:
    """The words that a question is about, in order, as they are written but in lower case."""
    words = _words(question)
    return [word for word in words if word not in _STOP_WORDS] or words


def gram_coverage(question: str, text: str) -> float:
    """The share of the question's 4-grams that the text has, 0 to 1."""
    wanted = {gram for word in words_of(question) for gram in _gram_ids(word)}
    if not wanted:
        return 0.0
    present = {gram for word in _words(text) for gram in _gram_ids(word)}
    return len(wanted & present) / len(wanted)


def _words(text: str) -> list[str]:
    return [word[:_LONGEST_WORD] for word in _WORD.findall(text.lower().replace("ё", "е"))]


def _saturated(counts: Counter[int], average: int) -> Sparse:
    """The term-frequency part of BM25 for these occurrences."""
    damping = _K1 * (1 - _B + _B * counts.total() / average)
    weights = sorted((token, count * (_K1 + 1) / (count + damping)) for token, count in counts.items())
    return Sparse(tuple(token for token, _ in weights), tuple(weight for _, weight in weights))


def _presence(tokens: Iterable[int]) -> Sparse:
    distinct = tuple(sorted(set(tokens)))
    return Sparse(distinct, (1.0,) * len(distinct))


_ENGLISH: Final = Stemmer.Stemmer("english")
_RUSSIAN: Final = Stemmer.Stemmer("russian")
_STEMMER_LOCK: Final = Lock()  # a stemmer keeps state while it works


@lru_cache(_CACHED_WORDS)
def _word_id(word: str) -> int:
    with _STEMMER_LOCK:
        stem = (_RUSSIAN if _CYRILLIC.search(word) else _ENGLISH).stemWord(word)
    return crc32(stem.encode())


@lru_cache(_CACHED_WORDS)
def _gram_ids(word: str) -> tuple[int, ...]:
    framed = f"_{word}_"
    return tuple(crc32(framed[i : i + _GRAM].encode()) for i in range(max(1, len(framed) - _GRAM + 1)))


_STOP_WORDS: Final = frozenset(
    """
    a an the and or but if of to in on at by for from with as into about is are was were be been being am do does
    did have has had will would can could should may might must i you he she it we they me him her us them my your
    his its our their this that these those what which who whom whose when where why how there here not no и в во не
    что он на я с со как а то все она так его но да ты к у же вы за бы по только ее мне было вот от меня о из ему
    когда даже ну ли если уже или ни быть был него до вас вам ведь там потом себя ей может они тут где есть надо ней
    для мы тебя их чем была сам чтоб без будто чего раз тоже себе под будет кто этот того потому этого какой какая
    какое какие ним здесь этом один мой тем чтобы нее были куда зачем всех можно при об это эта эти почему
    """.split()
)
