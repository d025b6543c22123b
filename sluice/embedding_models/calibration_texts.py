"""Texts to calibrate a quantized network on, and others to judge it by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from sluice.errors import Invalid

_MOST_TO_CALIBRATE_ON: Final = 200
_LEAST_TO_JUDGE_BY: Final = 50
_MOST_TO_JUDGE_BY: Final = 600
_PASSAGE_CHARACTERS: Final = 40
_LANGUAGES: Final = ("en", "ru")


@dataclass(frozen=True)
class Texts:
    """Passages; none of those to judge by is among those to calibrate on."""

    to_calibrate: tuple[str, ...]
    to_judge: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The same for the same passages to calibrate on."""
        return hashlib.sha256("\n".join(self.to_calibrate).encode()).hexdigest()


def shipped_texts(languages: Sequence[str]) -> Texts:
    """The texts of this package: calibrated on in every language, judged by in those that the model reads."""
    by_language = {code: _split(_shipped(code)) for code in _LANGUAGES}
    judged = [code for code in _LANGUAGES if code in languages] or list(_LANGUAGES)
    calibrate = tuple(text for code in _LANGUAGES for text in by_language[code].to_calibrate)
    # Passages that were never translated stand in the texts of both languages.
    judge = (text for code in judged for text in by_language[code].to_judge if text not in calibrate)
    return Texts(calibrate, tuple(judge)[:_MOST_TO_JUDGE_BY])


def texts_of(file: Path) -> Texts:
    """The passages of an operator's file: one in a line, or paragraphs with an empty line between them."""
    content = file.read_text(encoding="utf-8")
    pieces = re.split(r"\n\s*\n", content) if re.search(r"\n\s*\n", content) else content.splitlines()
    passages = list(dict.fromkeys(" ".join(piece.split()) for piece in pieces))
    found = _split([passage for passage in passages if len(passage) >= _PASSAGE_CHARACTERS])
    if len(found.to_judge) < _LEAST_TO_JUDGE_BY:
        raise Invalid(
            f"{file} has {len(found.to_calibrate) + len(found.to_judge)} passages; at least "
            f"{2 * _LEAST_TO_JUDGE_BY} different ones of {_PASSAGE_CHARACTERS} or more characters are needed.",
            code="too_few_texts",
        )
    return found


def _split(passages: Sequence[str]) -> Texts:
    every = max(4, len(passages) // _MOST_TO_CALIBRATE_ON)
    calibrate = tuple(passages[::every][:_MOST_TO_CALIBRATE_ON])
    judge = [passage for position, passage in enumerate(passages) if position % every]
    return Texts(calibrate, tuple(judge[:_MOST_TO_JUDGE_BY]))


def _shipped(language: str) -> list[str]:
    content = (files(__package__) / "texts" / f"{language}.txt").read_text(encoding="utf-8")
    return content.splitlines()
