"""Which language a text is written in."""

from __future__ import annotations

import re
from typing import Final

import pycld2

UNDETERMINED: Final = "und"

_LATIN_LETTERS: Final = re.compile(r"[a-zA-Z\u00c0-\u024f\u1e00-\u1eff]")
_CYRILLIC_LETTERS: Final = re.compile(r"[\u0400-\u052f]")
_LETTERS: Final = re.compile(r"[^\W\d_]")
_NOT_LETTERS: Final = re.compile(r"[\W\d_]+")

_SAMPLE_CHARACTERS: Final = 2000  # more text does not change the verdict, only takes longer
_FEWEST_LETTERS: Final = 2
_SHORT_LETTERS: Final = 60  # below, the script's main language wins unless another one is plain
_PLAIN_PERCENT: Final = 90


def detect(text: str) -> str:
    """The language's ISO 639-1 code, or `und` for a text without letters or without a clear language.

    By Compact Language Detector 2 (0.03 ms for a passage). A short text, such as a question, counts as English in
    Latin and Russian in Cyrillic letters unless another language is plain.
    """
    sample = _NOT_LETTERS.sub(" ", text[:_SAMPLE_CHARACTERS]).strip()
    letters = len(_LETTERS.findall(sample))
    if letters < _FEWEST_LETTERS:
        return UNDETERMINED
    cyrillic = len(_CYRILLIC_LETTERS.findall(sample))
    latin = len(_LATIN_LETTERS.findall(sample))
    if letters - cyrillic - latin > max(cyrillic, latin):
        return _likeliest(sample)[0]
    # Russian texts are full of Latin names and terms; the reverse is rare.
    if cyrillic * 3 >= latin:
        cyrillic_only = " ".join(word for word in sample.split() if _CYRILLIC_LETTERS.search(word))
        return _settled(cyrillic_only, prior="ru", letters=cyrillic)
    return _settled(sample, prior="en", letters=latin)


def _settled(sample: str, *, prior: str, letters: int) -> str:
    if letters >= _SHORT_LETTERS:
        return _likeliest(sample)[0]
    language, plain = _likeliest(sample, hint=prior)
    return language if plain else prior


def _likeliest(sample: str, hint: str | None = None) -> tuple[str, bool]:
    """The best guess, and whether it is plain; the hint is the language that is expected."""
    reliable, _, ((_, code, percent, _), *_) = pycld2.detect(sample, bestEffort=True, hintLanguage=hint)
    if code == "un":
        return UNDETERMINED, False
    return code.partition("-")[0], reliable and percent >= _PLAIN_PERCENT
