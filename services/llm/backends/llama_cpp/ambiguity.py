"""How many ways a grammar has to read the same text. Pure.

For every token of the vocabulary llama.cpp follows every way in which the grammar can read the token's characters, one
after the other, on the thread that serves all answers: `x x x x x x` with `x ::= [a-z]*` takes minutes. So the ways are
counted first, on stacks of places as llama.cpp has them: from each place where there is a choice, the characters are
sought that keep most ways open. That finds the worst text nearly always; it is a search, not a proof.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from heapq import nlargest
from typing import Final, NoReturn

from services.llm.backends.llama_cpp.beginnings import require_few_beginnings
from services.llm.backends.llama_cpp.errors import GrammarRefused
from services.llm.backends.llama_cpp.gbnf import Ranges, Rules, Symbol, TooManySymbols, rules_of

MOST_WAYS: Final = 100_000
"""Steps along all ways to read one token; each takes llama.cpp some 5 microseconds."""
MOST_VISITS: Final = 120
"""How often llama.cpp looks at each token of the vocabulary: 2 to 4 ms each time for 50,000 tokens."""
WIDEST: Final = 1_200
"""Places at which a text may go on, and characters in their sets: an enumeration of 1,000 words passes."""
LONGEST: Final = 0.5
"""Seconds to follow all tokens, where each character leads to many places: `("a" | "b" | "c" | ...)*`."""
MOST_WORK: Final = 800_000
"""Steps of this analysis: about a second."""

_LONGEST_TOKEN: Final = 16
_LONGEST_RUN: Final = 64
"""Tokens of one character repeated are longer than others: spaces, dashes."""
_ROUNDS: Final = 4
_NESTED: Final = 17
_MOST_NAMES: Final = 20
_LIKELIEST: Final = 2
_BROADEST: Final = 8
_TOKENS: Final = 50_000
# What llama.cpp needs for each place that follows, and to compare it with each other one.
_SECONDS_EACH: Final = 0.13e-6
_SECONDS_EACH_TWO: Final = 1e-9
_LETTERS: Final = 26
_COMMON: Final = 8
"""Letters that are as frequent as the most frequent one."""
# The part of a vocabulary whose tokens have a first, second, ... character and may still be rejected behind it.
_PARTS: Final = (0.66, 0.45, 0.40, 0.28, 0.22, 0.15, 0.087, 0.056, 0.034, 0.021, 0.012, 0.006, 0.003, 0.001, 0.001, 0)
_END: Final = -1
_EMPTY: Final = 0

Ways = dict[int, tuple[int, float]]
"""For each stack: how many ways lead there, and the part of the tokens that go along, summed over the ways."""


def require_few_ways(grammar: str) -> None:
    """`GrammarRefused` if llama.cpp would take too long for a token because the same text can be read in many ways."""
    try:
        rules = rules_of(grammar)
        require_few_beginnings(rules)
        _Search(rules).run()
    except TooManySymbols:
        raise _refused("with its repetitions written out it is too large; repeat less") from None


def _refused(what: str) -> GrammarRefused:
    return GrammarRefused(f"The grammar takes too long to follow: {what}.", param="grammar")


def _are_several(ways: Ways) -> bool:
    return sum(count for count, _ in ways.values()) > 1


class _Search:
    """Stacks are numbers: each is a place in a rule above another stack, and the same two always have one number."""

    def __init__(self, rules: Rules) -> None:
        self._root = rules.root
        self._written = rules.written
        self._symbols: list[Symbol] = []
        self._after: list[int] = []
        self._names: list[str] = []
        self._alternatives: list[list[int]] = []
        for rule, name in zip(rules.rules, rules.names, strict=True):
            self._alternatives.append([])
            for one in rule:
                self._alternatives[-1].append(len(self._symbols) if one else _END)
                self._symbols += one
                self._names += [name] * len(one)
                self._after += [*range(len(self._after) + 1, len(self._symbols)), _END][: len(one)]
        self._numbers: dict[tuple[int, int], int] = {}
        self._places = [_END]
        self._below = [_EMPTY]
        self._expanded: dict[int, tuple[int, ...]] = {}
        self._shares: dict[tuple[Ranges, int], float] = {}
        self._scales: dict[int, float] = {}
        self._followed: set[frozenset[int]] = set()
        self._work = 0

    def run(self) -> None:
        reached = self._reached()
        for start in nlargest(_BROADEST, reached, key=lambda one: len(self._expand(one))):
            self._follow_all(start)
        for start in [*filter(self._has_a_choice, reached), *self._deeply_nested()]:
            self._follow(start)

    # Stacks

    def _push(self, place: int, below: int) -> int:
        if place == _END:
            return below
        number = self._numbers.setdefault((place, below), len(self._places))
        if number == len(self._places):
            self._places.append(place)
            self._below.append(below)
        return number

    def _expand(self, stack: int) -> tuple[int, ...]:
        """The stacks with a character on top that this one may become before the next character."""
        if stack in self._expanded:
            return self._expanded[stack]
        seen: set[int] = set()
        found: list[int] = []
        compared = 0
        waiting = [stack]
        while waiting:
            one = waiting.pop()
            if one in seen or one == _EMPTY:
                continue
            seen.add(one)
            symbol = self._symbols[self._places[one]]
            if isinstance(symbol, int):
                rest = self._push(self._after[self._places[one]], self._below[one])
                waiting += [self._push(first, rest) for first in self._alternatives[symbol]]
            else:
                found.append(one)
                compared += self._written.get(symbol, 1)
            if len(seen) > 4 * WIDEST or compared > WIDEST:
                self._refuse(stack, "can go on with too many characters or words at once, or begins with itself")
        self._spend(len(seen))
        self._expanded[stack] = tuple(found)
        return self._expanded[stack]

    def _next(self, stack: int) -> int:
        return self._push(self._after[self._places[stack]], self._below[stack])

    def _ranges(self, stack: int) -> Ranges:
        symbol = self._symbols[self._places[stack]]
        return () if isinstance(symbol, int) else symbol

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MOST_WORK:
            raise _refused("it has too many choices to be checked; make it smaller")

    def _refuse(self, stack: int, what: str) -> NoReturn:
        place = self._places[stack]
        inner = self._symbols[place]
        # A rule that is all that is left here has a name that says more.
        for _ in range(_MOST_NAMES):
            if not isinstance(inner, int) or self._after[place] != _END:
                break
            first, *others = self._alternatives[inner]
            if others or first == _END:
                break
            place, inner = first, self._symbols[first]
        raise _refused(f"rule {self._names[place]!r} {what}")

    # Where to begin

    def _reached(self) -> list[int]:
        """Stacks that can be reached before a character, of each two places on top one."""
        found = [self._push_root()]
        seen = {self._top(found[0])}
        for stack in found:
            self._spend(2 * len(self._expand(stack)))
            for one in self._expand(stack):
                following = self._next(one)
                if following != _EMPTY and (top := self._top(following)) not in seen:
                    seen.add(top)
                    found.append(following)
        return found

    def _has_a_choice(self, stack: int) -> bool:
        ways = self._expand(stack)
        return len(ways) > 1 and self._best_characters(dict.fromkeys(ways, (1, 1.0)))[0][0] > 1

    def _push_root(self) -> int:
        self._symbols.append(self._root)
        self._after.append(_END)
        self._names.append("root")
        return self._push(len(self._symbols) - 1, _EMPTY)

    def _top(self, stack: int) -> tuple[int, int]:
        return self._places[stack], self._places[self._below[stack]]

    def _deeply_nested(self) -> Iterator[int]:
        """For each rule that comes back to itself and goes on afterwards: what is left to do after many such turns."""
        calls = self._calls_in_circles()
        for rule, inside in calls.items():
            for place, called in inside:
                if self._after[place] == _END:
                    continue
                way = self._way(calls, called, rule)
                if way is None:
                    continue
                frames = [place, *way]
                self._spend(_NESTED * len(frames))
                stack = _EMPTY
                for _ in range(_NESTED):
                    for frame in frames:
                        stack = self._push(self._after[frame], stack)
                yield self._push(self._after[place], stack)

    def _calls_in_circles(self) -> dict[int, list[tuple[int, int]]]:
        """For each rule its calls, as place and rule called, without rules that lead nowhere or are led to by none."""
        calls = {rule: list(self._calls(rule)) for rule in range(len(self._alternatives))}
        for _ in range(2):
            callers: dict[int, list[int]] = {rule: [] for rule in calls}
            for rule, inside in calls.items():
                for _place, called in inside:
                    callers[called].append(rule)
            left = Counter({rule: len(inside) for rule, inside in calls.items()})
            leaves = [rule for rule in calls if not left[rule]]
            while leaves:
                for caller in callers[leaves.pop()]:
                    left[caller] -= 1
                    if not left[caller]:
                        leaves.append(caller)
            kept = {rule for rule in calls if left[rule]}
            calls = {rule: [one for one in calls[rule] if one[1] in kept] for rule in kept}
        return calls

    def _calls(self, rule: int) -> Iterator[tuple[int, int]]:
        for first in self._alternatives[rule]:
            place = first
            while place != _END:
                symbol = self._symbols[place]
                if isinstance(symbol, int):
                    yield place, symbol
                place = self._after[place]

    def _way(self, calls: dict[int, list[tuple[int, int]]], begin: int, end: int) -> list[int] | None:
        """The places of the calls that lead from one rule to the other, if any do."""
        came: dict[int, tuple[int, int]] = {}
        waiting = deque([begin])
        while waiting and end != begin and end not in came:
            rule = waiting.popleft()
            self._spend(1 + len(calls[rule]))
            for place, called in calls[rule]:
                if called not in came and called != begin:
                    came[called] = (place, rule)
                    waiting.append(called)
        if end != begin and end not in came:
            return None
        found: list[int] = []
        while end != begin:
            place, end = came[end]
            found.append(place)
        return found[::-1]

    # Following

    def _follow(self, start: int) -> None:
        ways: Ways = dict.fromkeys(self._expand(start), (1, 1.0))
        for _, character in self._best_characters(ways):
            self._follow_text(start, ways, [character] * _LONGEST_RUN)
        for _ in range(_ROUNDS):
            stacks = frozenset(ways)
            if not _are_several(ways) or stacks in self._followed:
                return
            self._followed.add(stacks)
            ways = dict.fromkeys(self._follow_best(start, ways), (1, 1.0))

    def _follow_all(self, start: int) -> None:
        """Adds up what all tokens cost. A way is followed once for all tokens that go along, if there are any."""
        ways: Ways = dict.fromkeys(self._expand(start), (1, 1.0))
        scales = dict.fromkeys(ways, self._scale(start))
        seconds = 0.0
        for part in _PARTS:
            after: Ways = {}
            for stack, (count, share) in ways.items():
                followed = min(count, _TOKENS * part * share)
                if followed < 1:
                    continue
                following = self._expand(self._next(stack))
                scale = self._scale(self._next(stack))
                self._spend(1 + len(following))
                width = len(following)
                seconds += followed * (width * _SECONDS_EACH + width * width * _SECONDS_EACH_TWO)
                going = share * self._share(self._ranges(stack), _LETTERS) * scales[stack]
                for one in following:
                    before = after.get(one, (0, 0.0))
                    after[one] = (before[0] + count, before[1] + going)
                    scales[one] = scale
            if seconds > LONGEST:
                self._refuse(
                    start, "has too many alternatives in a row. Use sets like [a-z], and put something between words"
                )
            ways = after

    def _scale(self, stack: int) -> float:
        """What to multiply shares with, because alternatives that exclude one another share the tokens."""
        if stack not in self._scales:
            ways: Ways = dict.fromkeys(self._expand(stack), (1, 1.0))
            shares = sum(self._share(self._ranges(one), _LETTERS) for one in ways)
            self._scales[stack] = min(1.0, self._best_characters(ways)[0][0] / shares) if shares else 1.0
        return self._scales[stack]

    def _follow_text(self, start: int, ways: Ways, text: Iterable[int]) -> None:
        steps = 0
        for character in text:
            ways, _ = self._step(ways, character)
            steps += sum(count for count, _ in ways.values())
            if steps > MOST_WAYS:
                self._refuse_ways(start)
            if not _are_several(ways):
                return

    def _follow_best(self, start: int, ways: Ways) -> Ways:
        """The ways that a token may leave open, of the tokens that keep most of them."""
        kept = [(0, 0.0, ways)]
        for part in _PARTS:
            found: list[tuple[int, float, Ways]] = []
            for steps, visits, ways_so_far in kept:
                for _, character in self._best_characters(ways_so_far):
                    after, share = self._step(ways_so_far, character)
                    total = sum(count for count, _ in after.values())
                    found.append((steps + total, visits + share * part + total * 0.0026, after))
                    if found[-1][0] > MOST_WAYS or found[-1][1] > MOST_VISITS or len(after) > WIDEST:
                        self._refuse_ways(start)
            # Where one way is left, what follows is looked at from there.
            found = [one for one in found if _are_several(one[2])]
            if not found:
                return {}
            found.sort(key=lambda one: sum(count for count, _ in one[2].values()), reverse=True)
            kept = found[:_LIKELIEST]
        return kept[0][2]

    def _refuse_ways(self, start: int) -> NoReturn:
        self._refuse(
            start,
            "reads the same text in too many ways. Say it in one: of two neighbours, or two alternatives, only one "
            "should match the next character",
        )

    def _step(self, ways: Ways, character: int) -> tuple[Ways, float]:
        """The ways after this character, and the part of the vocabulary that goes along."""
        found: Ways = {}
        visits = 0.0
        for stack, (count, share) in ways.items():
            ranges = self._ranges(stack)
            if any(first <= character <= last for first, last in ranges):
                going = share * self._share(ranges, _COMMON)
                visits += going
                following = self._expand(self._next(stack))
                self._spend(len(following))
                for one in following:
                    before = found.get(one, (0, 0.0))
                    found[one] = (before[0] + count, before[1] + going)
        self._spend(len(ways))
        return found, visits

    def _share(self, ranges: Ranges, all_letters: int) -> float:
        """The part of tokens that go on with a character of this set, where so many letters are all of them."""
        if (ranges, all_letters) not in self._shares:
            size = sum(last - first + 1 for first, last in ranges)
            has_space = any(first <= ord(" ") <= last for first, last in ranges)
            self._shares[ranges, all_letters] = min(1.0, size / all_letters + 0.6 * has_space)
        return self._shares[ranges, all_letters]

    def _best_characters(self, ways: Ways) -> list[tuple[int, int]]:
        """Characters that keep most ways open, best first, each with how many."""
        changes: Counter[int] = Counter()
        for stack, (count, _) in ways.items():
            for first, last in self._ranges(stack):
                changes[first] += count
                changes[last + 1] -= count
        self._spend(len(changes))
        open_ways, found = 0, []
        for character in sorted(changes):
            open_ways += changes[character]
            if open_ways:
                found.append((open_ways, character))
        return sorted(found, reverse=True)[:_LIKELIEST]
