"""The rules that llama.cpp makes of a grammar in GBNF. Pure.

Only grammars in order come here, in tokens that `TOKEN` found. Nesting is as
deep as the user likes, so nothing recurses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\r\n]+|\#[^\n]*)
    | (?P<rule>[A-Za-z0-9_-]+)[ \t]*::=
    | (?P<name>[A-Za-z0-9_-]+)
    | (?P<literal>"(?:[^"\\\n]|\\.)*")
    | (?P<chars>\[(?:[^\]\\\n]|\\.)*\])
    | (?P<count>\{[ \t]*(?P<least>\d{1,6})[ \t]*(?P<comma>,[ \t]*(?P<most>\d{1,6})?[ \t]*)?\})
    | (?P<mark>[()|.*+?])
    """,
    re.VERBOSE,
)
_CHARACTER: Final = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)|.", re.DOTALL)
_ESCAPED: Final = {"t": "\t", "r": "\r", "n": "\n"}
LAST_CHARACTER: Final = 0x10FFFF
MOST_SYMBOLS: Final = 100_000

Ranges = tuple[tuple[int, int], ...]
"""The characters of a set: first and last of each range, in order, apart from one another."""
Symbol = Ranges | int
"""What one place of a rule matches: a character, or a rule by its number."""
Rule = list[list[Symbol]]
"""Alternatives; an empty one matches nothing."""


class TooManySymbols(Exception):
    """Written out, the repetitions are more than `MOST_SYMBOLS`."""


@dataclass
class Rules:
    """Of a grammar. Groups and repetitions are rules of their own, and bear the name of the rule they stand in."""

    rules: list[Rule] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    written: dict[Ranges, int] = field(default_factory=dict)
    """Characters with which a set is written, at most; llama.cpp compares with each."""
    root: int = 0

    def added(self, name: str) -> int:
        """The number of a new rule."""
        self.rules.append([[]])
        self.names.append(name)
        return len(self.rules) - 1


def rules_of(grammar: str) -> Rules:
    """The rules of a grammar that is in order."""
    return _Writer(grammar).written()


class _Writer:
    def __init__(self, grammar: str) -> None:
        self._grammar = grammar
        self._found = Rules()
        self._numbers: dict[str, int] = {}
        self._rule = 0
        self._open: list[int] = []
        self._last = 0
        """Where in the alternative begins what may be repeated next."""
        self._symbols = 0

    def written(self) -> Rules:
        for token in TOKEN.finditer(self._grammar):
            self._take(token)
            if self._symbols > MOST_SYMBOLS:
                raise TooManySymbols
        self._found.root = self._number("root")
        return self._found

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = self._found.added(name)
        return self._numbers[name]

    def _take(self, token: re.Match[str]) -> None:
        text = token.group()
        if token["rule"]:
            self._rule = self._number(token["rule"])
        elif token["name"]:
            self._append(self._number(text))
        elif token["literal"]:
            self._append(*(((one, one),) for one in _characters(text[1:-1])))
        elif token["chars"]:
            ranges = _set_of(text[1:-1])
            self._found.written[ranges] = max(self._found.written.get(ranges, 1), len(_CHARACTER.findall(text[1:-1])))
            self._append(ranges)
        elif text == ".":
            self._append(((0, LAST_CHARACTER),))
        elif text == "(":
            self._open.append(self._rule)
            self._rule = self._found.added(self._found.names[self._rule])
        elif text == ")":
            group, self._rule = self._rule, self._open.pop()
            self._append(group)
        elif text == "|":
            self._found.rules[self._rule].append([])
            self._symbols += 1
        elif not token["space"]:
            self._repeat(*_bounds(token))

    def _append(self, *symbols: Symbol) -> None:
        sequence = self._found.rules[self._rule][-1]
        self._last = len(sequence)
        sequence += symbols
        self._symbols += len(symbols)

    def _repeat(self, least: int, most: int | None) -> None:
        """As llama.cpp does: `x{1,3}` is `x x2`, where `x2 ::= x x1 |` and `x1 ::= x |`."""
        sequence = self._found.rules[self._rule][-1]
        repeated = sequence[self._last :]
        optional = 1 if most is None else most - least
        self._symbols += (least + optional) * (len(repeated) + 1)
        if self._symbols > MOST_SYMBOLS:
            raise TooManySymbols
        sequence[self._last :] = repeated * least
        inner: list[Symbol] = []
        for _ in range(optional):
            number = self._found.added(self._found.names[self._rule])
            self._found.rules[number] = [[*repeated, *([number] if most is None else inner)], []]
            inner = [number]
        sequence += inner


def _bounds(token: re.Match[str]) -> tuple[int, int | None]:
    if not token["count"]:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[token.group()]
    least = int(token["least"])
    return least, int(token["most"]) if token["most"] else None if token["comma"] else least


def _characters(text: str) -> list[int]:
    return [_character(one) for one in _CHARACTER.findall(text)]


def _character(text: str) -> int:
    if text[0] != "\\" or len(text) == 1:
        return ord(text)
    hexadecimal = text[2:]
    return int(hexadecimal, base=16) if hexadecimal else ord(_ESCAPED.get(text[1], text[1]))


def _set_of(text: str) -> Ranges:
    negated = text.startswith("^")
    written = _CHARACTER.findall(text[negated:])
    found, at = [], 0
    while at < len(written):
        is_range = written[at + 1 : at + 2] == ["-"] and at + 2 < len(written)
        found.append((_character(written[at]), _character(written[at + 2 if is_range else at])))
        at += 3 if is_range else 1
    joined: list[tuple[int, int]] = []
    for first, last in sorted(one for one in found if one[0] <= one[1]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(_without(joined) if negated else joined)


def _without(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    edges = [-1, *(edge for one in ranges for edge in one), LAST_CHARACTER + 1]
    return [(low + 1, high - 1) for low, high in zip(edges[::2], edges[1::2], strict=True) if low + 1 < high]
