"""Texts in parts that llama.cpp survives. Pure.

It finds the words of a text with regular expressions whose matcher calls itself for every character. Thirty thousand
characters that are one word to it, or one gap, take all of a thread's stack, and the process ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

LONGEST_RUN: Final = 4000
"""Characters without an end of a word. No word has so many, and a thread's stack has room for several times as many."""

# To llama.cpp, these four that Python takes for white space are none.
_GAP: Final = r"[^\S\x1c-\x1f]"
_WORD: Final = r"[\S\x1c-\x1f]"
# Only where a run begins: to try it anew at each of its characters takes long.
_TOO_LONG: Final = re.compile("|".join(f"(?<!{kind}){kind}{{{LONGEST_RUN + 1},}}" for kind in (_GAP, _WORD)))


def parts_of(text: str, names: Sequence[str] = ()) -> list[str]:
    """The text in parts without longer runs; nearly every text is one part. None of the tokens' `names` is cut."""
    parts: list[str] = []
    begin = 0
    for run in _TOO_LONG.finditer(text):
        cut = run.start() + LONGEST_RUN
        while cut < run.end():
            cut = _before_name(text, cut, names)
            parts.append(text[begin:cut])
            begin = cut
            cut += LONGEST_RUN
    return [*parts, text[begin:]]


def _before_name(text: str, cut: int, names: Sequence[str]) -> int:
    found = (text.find(name, cut - len(name) + 1, cut + len(name) - 1) for name in names if len(name) <= LONGEST_RUN)
    return min((at for at in found if at >= 0), default=cut)
