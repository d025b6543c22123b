"""How often llama.cpp visits rules when it looks for left recursion in a grammar. Pure.

It visits a rule once for each way there, and does not remember where it was: `r0 ::= r1 | r1`, `r1 ::= r2 | r2` and so
on doubles its time with every line.
"""

from __future__ import annotations

from typing import Final

from services.llm.backends.llama_cpp.errors import GrammarRefused
from services.llm.backends.llama_cpp.gbnf import Rules

MOST_VISITS: Final = 5_000_000


def require_few_beginnings(rules: Rules) -> None:
    """`GrammarRefused` if rules begin with one another in more than `MOST_VISITS` ways."""
    empty = may_be_empty(rules)
    begins_with = [_leftmost(rules, rule, empty) for rule in range(len(rules.rules))]
    visits: dict[int, int] = {}
    total = 0
    for rule in range(len(begins_with)):
        _count(rule, begins_with, visits)
        total += visits[rule]
        if total > MOST_VISITS:
            raise GrammarRefused(
                "The grammar takes too long to follow: its rules begin with one another in too many ways; name a rule "
                "once per place.",
                param="grammar",
            )


def _count(rule: int, begins_with: list[list[int]], visits: dict[int, int]) -> None:
    """Fill in the visits of a rule and of all that it begins with; a circle ends where it closes."""
    waiting, begun = [rule], set[int]()
    while waiting:
        one = waiting[-1]
        if one not in begun and one not in visits:
            begun.add(one)
            waiting += [inner for inner in begins_with[one] if inner not in visits and inner not in begun]
            continue
        waiting.pop()
        if one not in visits:
            visits[one] = min(MOST_VISITS, 1 + sum(visits.get(inner, 1) for inner in begins_with[one]))


def _leftmost(rules: Rules, rule: int, empty: set[int]) -> list[int]:
    found: list[int] = []
    for alternative in rules.rules[rule]:
        for symbol in alternative:
            if not isinstance(symbol, int):
                break
            found.append(symbol)
            if symbol not in empty:
                break
    return found


def may_be_empty(rules: Rules) -> set[int]:
    """The rules that may match nothing, also through others."""
    callers: dict[int, list[tuple[int, int]]] = {}
    # For each alternative of rules alone: how many of them are not known to be empty.
    unknown: dict[tuple[int, int], int] = {}
    found: list[int] = []
    for rule, alternatives in enumerate(rules.rules):
        for number, alternative in enumerate(alternatives):
            if not alternative:
                found.append(rule)
            called = [symbol for symbol in alternative if isinstance(symbol, int)]
            if called and len(called) == len(alternative):
                unknown[rule, number] = len(called)
                for one in called:
                    callers.setdefault(one, []).append((rule, number))
    empty: set[int] = set()
    while found:
        if (rule := found.pop()) in empty:
            continue
        empty.add(rule)
        for place in callers.get(rule, ()):
            unknown[place] -= 1
            if not unknown[place]:
                found.append(place[0])
    return empty
