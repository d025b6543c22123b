"""Sentences of a passage, as they stand in it. English and Russian. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Behind these a full stop ends a word, not a sentence.
_ENGLISH_ABBREVIATIONS = """
al approx apr aug ca cf ch chap co corp dec dept dr e.g ed eds etc feb fig figs i.e inc incl jan jr jun jul ltd mar mr
mrs ms no nos nov oct p pp prof resp sec sect sep sept sr st v ver vol vs
"""
_RUSSIAN_ABBREVIATIONS = """
акад англ в вв г гг гл д до др им канд коп лат млн млрд мин н н.э напр п пп пр прим проф р рис руб рус с сек см ср ст
стр т т.д т.е т.ж т.к т.н т.о т.п т.ч табл тыс ул ч чел э
"""
# These do end a sentence when a capital letter follows: "..., и т. д. Затем ...".
_FINAL_ABBREVIATIONS = """
co corp etc inc jr ltd sr г гг др пр руб т.д т.п чел
"""
_ABBREVIATIONS = frozenset(f"{_ENGLISH_ABBREVIATIONS} {_RUSSIAN_ABBREVIATIONS}".split())
_MAY_END = frozenset(_FINAL_ABBREVIATIONS.split())

_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*•–—◦▪]|\(?\d{1,2}[.)])[ \t])")
_LEAD = re.compile(r"\s*(?:[-*•–—◦▪]\s+)?")
# Possessive, and only at the first of several marks: a page of dots must not take quadratic time.
_END_MARK = re.compile(r"(?<![.!?…])[.!?…]++[\"'»”’)\]]*+(?=\s)")
_LAST_WORD = re.compile(r"(?<![^\W_])(?:[^\W\d_]\.[ \u00a0]?)*[^\W_]+$")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*")
# No abbreviation and no number of a heading is longer than this.
_LOOK_BACK = 40
_NUMBER_OF_HEADING = re.compile(
    r"[\s(]*(?:(?:chapter|section|appendix|глава|раздел|приложение)\s+)?(?:\d+|[A-ZА-Я])(?:\.\d+)*$", re.IGNORECASE
)
_NEXT_BEGINS = re.compile(r"\s*([\"'«“‘(\[*_`]*)([^\W_])")
_HEADING_LINE = re.compile(r"(?:\d+(?:\.\d+)*\.?[ \t]+)?[^\W\d_][^\n]{0,78}[^\s.!?…:;,\-]\n(?=\s*[^\Wa-zа-яё_])")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each sentence begins and ends, without the white space around it and the bullet before it."""
    for begin, end in _paragraph_spans(text):
        at = begin
        for mark in _END_MARK.finditer(text, begin, end):
            if _ends_sentence(text, at, mark, end):
                yield from _stripped(text, at, mark.end())
                at = mark.end()
        yield from _stripped(text, at, end)


def _paragraph_spans(text: str) -> Iterator[tuple[int, int]]:
    """Parts between empty lines and before list items; a first line that is a heading stands alone."""
    at = 0
    for gap in _PARAGRAPH_BREAK.finditer(text):
        yield from _heading_apart(text, at, gap.start())
        at = gap.end()
    yield from _heading_apart(text, at, len(text))


def _heading_apart(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    heading = _HEADING_LINE.match(text, begin, end)
    # A first line much shorter than the next one was not broken for want of room.
    if heading and 2 * (heading.end() - begin) < _line_length(text, heading.end(), end):
        yield begin, heading.end()
        begin = heading.end()
    yield begin, end


def _line_length(text: str, begin: int, end: int) -> int:
    line_end = text.find("\n", begin, end)
    return (end if line_end < 0 else line_end) - begin


def _ends_sentence(text: str, begin: int, mark: re.Match[str], end: int) -> bool:
    following = _NEXT_BEGINS.match(text, mark.end(), end)
    if following is None:
        return True
    opening, begins = following.groups()
    # A quoted word keeps its small letter at the beginning of a sentence: "dpkg" does this.
    if begins.islower() and not opening:
        return False
    if mark.group()[0] != "." or mark.group().startswith(".."):
        return True
    if mark.start() - begin <= _LOOK_BACK and _NUMBER_OF_HEADING.fullmatch(text, begin, mark.start()):
        return False
    return not _stop_belongs_to_word(text[max(begin, mark.start() - _LOOK_BACK) : mark.start()], begins)


def _stop_belongs_to_word(before: str, next_letter: str) -> bool:
    """Whether the full stop behind this text is that of an initial or an abbreviation."""
    last = _LAST_WORD.search(before)
    word = "".join(last.group().split()) if last else ""
    if word.isupper() and _INITIALS.fullmatch(word):
        return True
    if word.lower() in _MAY_END:
        return next_letter.isdigit()
    return word.lower() in _ABBREVIATIONS


def _stripped(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    lead = _LEAD.match(text, begin, end)
    begin = lead.end() if lead else begin
    inner = text[begin:end].rstrip()
    if inner:
        yield begin, begin + len(inner)
