"""What a grammar in GBNF must be like before llama.cpp reads it. Pure.

llama.cpp reads grammars by recursion and ends the process when it gets one that it did not foresee, so a grammar is
read here first, without recursion and with limits: what does not pass is refused, never ignored.
"""

from __future__ import annotations

import re
from typing import Final

from services.llm.backends.llama_cpp.ambiguity import require_few_ways
from services.llm.backends.llama_cpp.errors import GrammarRefused
from services.llm.backends.llama_cpp.gbnf import TOKEN

LARGEST: Final = 65_536
"""Characters of a grammar at most."""
DEEPEST: Final = 256
"""Parentheses within one another at most."""
MOST_REPEATS: Final = 1_000
"""The product of counts of nested repetitions at most: `(x{30}){30}` writes 900 rules."""

_ESCAPES: Final = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[tnr\\\"\[\]])")


def checked(grammar: str) -> str:
    """The grammar, if it may be given to llama.cpp; otherwise `GrammarRefused` says why not."""
    if len(grammar) > LARGEST:
        raise GrammarRefused(f"The grammar has {len(grammar)} characters; {LARGEST} are accepted.", param="grammar")
    if any(c < " " and c not in "\t\r\n" for c in grammar):
        raise GrammarRefused("The grammar has control characters; write them as \\x00.", param="grammar")
    _Reader(grammar).read()
    require_few_ways(grammar)
    return grammar


class _Reader:
    """Goes over the tokens of a grammar once."""

    def __init__(self, grammar: str) -> None:
        self._grammar = grammar
        self._defined: set[str] = set()
        self._used: set[str] = set()
        # For each parenthesis that is open: the largest count inside it so far.
        self._open: list[int] = []
        self._largest = 1
        self._last = 0
        """The count of what stands before, 0 if nothing stands there that can be repeated."""

    def read(self) -> None:
        at = 0
        while at < len(self._grammar):
            found = TOKEN.match(self._grammar, at)
            if found is None:
                raise self._wrong(f"{self._grammar[at : at + 20]!r} is not understood", at)
            self._take(found)
            at = found.end()
        if self._open:
            raise self._wrong("a parenthesis is not closed", at)
        if "root" not in self._defined:
            raise self._wrong("there is no rule `root`", 0)
        if missing := sorted(self._used - self._defined):
            raise self._wrong(f"rule {missing[0]!r} is used and not defined", 0)

    def _take(self, found: re.Match[str]) -> None:
        kind = found.lastgroup if found.lastgroup not in {"least", "comma", "most"} else "count"
        text = found.group()
        if kind == "space":
            return
        if kind == "rule":
            self._begin_rule(found["rule"], found.start())
        elif not self._defined:
            raise self._wrong("a rule begins with its name and ::=", found.start())
        elif kind == "count" or text in {"*", "+", "?"}:
            self._repeat(found)
        elif text == "(":
            if len(self._open) >= DEEPEST:
                raise self._wrong(f"parentheses are nested deeper than {DEEPEST}", found.start())
            self._open.append(self._largest)
            self._largest, self._last = 1, 0
        elif text == ")":
            self._close(found.start())
        elif text == "|":
            self._last = 0
        else:
            self._item(kind, text, found.start())

    def _begin_rule(self, name: str, at: int) -> None:
        if self._open:
            raise self._wrong("a parenthesis is not closed", at)
        if name in self._defined:
            raise self._wrong(f"rule {name!r} is defined twice", at)
        self._defined.add(name)
        self._largest, self._last = 1, 0

    def _item(self, kind: str | None, text: str, at: int) -> None:
        if kind == "name":
            self._used.add(text)
        if kind in {"literal", "chars"}:
            inner = text[1:-1]
            if "\\" in _ESCAPES.sub("", inner):
                raise self._wrong(f"{text[:20]} has an escape that is not known", at)
            if kind == "chars" and inner in {"", "^"}:
                raise self._wrong("a set of characters is empty", at)
        self._last = 1

    def _close(self, at: int) -> None:
        if not self._open:
            raise self._wrong("a parenthesis is closed that was not opened", at)
        inner = self._largest
        self._largest = max(self._open.pop(), inner)
        self._last = inner

    def _repeat(self, found: re.Match[str]) -> None:
        if not self._last:
            raise self._wrong(f"{found.group()} has nothing before it to repeat", found.start())
        least = int(found["least"] or 0)
        most = int(found["most"] or least)
        if found["count"] and found["most"] and most < least:
            raise self._wrong(f"{found.group()} is less than nothing", found.start())
        count = self._last * max(1, least, most)
        if count > MOST_REPEATS:
            raise self._wrong(f"repetitions multiply to more than {MOST_REPEATS}", found.start())
        self._largest = max(self._largest, count)
        self._last = count

    def _wrong(self, what: str, at: int) -> GrammarRefused:
        line = self._grammar.count("\n", 0, at) + 1
        return GrammarRefused(f"The grammar is wrong in line {line}: {what}.", param="grammar")
