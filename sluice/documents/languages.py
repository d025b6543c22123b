"""Which language a text is written in."""

from __future__ import annotations

import copy
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNDETERMINED: Final = "und"

# Languages that people write documents in; the rarer ones of the model only ever win by mistake on short texts.
_LATIN: Final = (
    *("en", "de", "fr", "es", "it", "pt", "nl", "pl", "cs", "sk", "sl", "hr", "ro", "hu", "tr", "sv", "da", "no", "fi"),
    *("et", "lv", "lt", "vi", "id"),
)
_CYRILLIC: Final = ("ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "tg", "tt", "ba", "mn")
_OTHER: Final = ("el", "he", "ar", "fa", "ur", "hy", "ka", "hi", "bn", "ta", "te", "th", "zh", "ja", "ko")

_CYRILLIC_LETTERS: Final = re.compile(r"[\u0400-\u052f]")
_LATIN_LETTERS: Final = re.compile(r"[a-zA-Z\u00c0-\u024f\u1e00-\u1eff]")
_LETTERS: Final = re.compile(r"[^\W\d_]")

_SAMPLE_CHARACTERS: Final = 1000  # more text does not change the verdict, only takes longer
_FEWEST_LETTERS: Final = 2
_SHORT_LETTERS: Final = 60  # below, the script's main language wins unless the model is all but sure
_SURE_SHORT: Final = 0.97
_SURE: Final = 0.5


def detect(text: str) -> str:
    """The language's ISO 639-1 code, or `und` for a text without letters or without a clear language.

    A short text, such as a question, counts as English in Latin and Russian in Cyrillic letters unless another
    language is all but certain. The first call loads the model (about 0.7 s).
    """
    sample = text[:_SAMPLE_CHARACTERS]
    letters = len(_LETTERS.findall(sample))
    if letters < _FEWEST_LETTERS:
        return UNDETERMINED
    cyrillic = len(_CYRILLIC_LETTERS.findall(sample))
    latin = len(_LATIN_LETTERS.findall(sample))
    if letters - cyrillic - latin > max(cyrillic, latin):
        return _likeliest(sample, _OTHER)[0]
    # Russian texts are full of Latin names and terms; the reverse is rare.
    if cyrillic * 3 >= latin:
        return _by_script(sample, _CYRILLIC, prior="ru", letters=cyrillic)
    return _by_script(sample, _LATIN, prior="en", letters=latin)


def _by_script(sample: str, candidates: tuple[str, ...], *, prior: str, letters: int) -> str:
    language, confidence = _likeliest(sample, candidates)
    if letters < _SHORT_LETTERS:
        return language if confidence >= _SURE_SHORT else prior
    return language if confidence >= _SURE else UNDETERMINED


def _likeliest(sample: str, candidates: tuple[str, ...]) -> tuple[str, float]:
    language, confidence = _identifier(candidates).classify(sample)
    return str(language), float(confidence)


@lru_cache(maxsize=3)
def _identifier(candidates: tuple[str, ...]) -> LanguageIdentifier:
    identifier = copy.copy(_model())
    identifier.set_languages(candidates)
    return identifier


@lru_cache(maxsize=1)
def _model() -> LanguageIdentifier:
    from py3langid import langid  # noqa: PLC0415 - loads numpy: only processes that detect languages pay for it

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
