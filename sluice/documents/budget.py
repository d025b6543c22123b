"""How much of a chunk's budget a text uses up. Pure.

Tokens of the embedding model are the measure, because what does not fit is not embedded. But a model that does not
know a script spells its words almost letter by letter: 200 tokens of all-MiniLM-L6-v2 are 100 English words and 34
Russian ones. Its vectors of such text mean little, and passages of a sentence and a half serve nobody; so text in a
script that the model does not read is measured in words, as though a usual number of tokens were needed for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

CountTokens = Callable[[Sequence[str]], list[int]]

# What English needs with a vocabulary that fits it, punctuation included.
_TOKENS_PER_WORD: Final = 1.5
_WORD: Final = re.compile(r"\w+")
_CYRILLIC: Final = re.compile(r"[\u0400-\u052f]")
_LETTER: Final = re.compile(r"[^\W\d_]")
_WRITTEN_IN_CYRILLIC: Final = frozenset({"ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "tg", "tt", "ba", "mn"})


def measured_for(languages: Collection[str], count_model_tokens: CountTokens) -> CountTokens:
    """A measure of texts for a model that reads these languages (ISO 639-1)."""
    if not _WRITTEN_IN_CYRILLIC.isdisjoint(languages):
        return count_model_tokens

    def count(texts: Sequence[str]) -> list[int]:
        foreign = [_is_cyrillic(text) for text in texts]
        counted = iter(count_model_tokens([text for text, spelled in zip(texts, foreign, strict=True) if not spelled]))
        return [_by_words(text) if spelled else next(counted) for text, spelled in zip(texts, foreign, strict=True)]

    return count


def _is_cyrillic(text: str) -> bool:
    # Most texts have none of these letters, and counting all others takes a quarter of the chunker's time.
    if not _CYRILLIC.search(text):
        return False
    return len(_CYRILLIC.findall(text)) * 2 > len(_LETTER.findall(text))


def _by_words(text: str) -> int:
    return max(1, round(len(_WORD.findall(text)) * _TOKENS_PER_WORD))
