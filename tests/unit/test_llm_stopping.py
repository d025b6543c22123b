"""Where an answer ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm.backends.base import Piece
from services.llm.stopping import AnswerLimits


def shown(limits: AnswerLimits, *pieces: str) -> list[str]:
    texts = []
    for piece in pieces:
        texts.append(limits.feed(Piece(piece, tokens=1)))
        if limits.finish_reason:
            return texts
    return [*texts, limits.end()]


def test_a_stop_string_split_over_pieces_is_never_shown() -> None:
    limits = AnswerLimits(["END"], max_tokens=None)
    assert shown(limits, "abc E", "N", "D def") == ["abc ", "", ""]
    assert limits.finish_reason == "stop"


def test_text_that_only_began_like_a_stop_string_is_shown_late_but_whole() -> None:
    assert shown(AnswerLimits(["END"], max_tokens=None), "abc E", "xact") == ["abc ", "Exact", ""]


def test_text_held_back_is_shown_when_the_answer_ends() -> None:
    assert shown(AnswerLimits(["END"], max_tokens=None), "the EN") == ["the ", "EN"]


def test_the_stop_string_that_comes_first_ends_the_answer() -> None:
    assert shown(AnswerLimits(["later", "now"], max_tokens=None), "not now, later") == ["not "]


def test_the_limit_of_tokens_cuts_the_answer_and_says_so() -> None:
    limits = AnswerLimits([], max_tokens=2)
    assert shown(limits, "one ", "two ", "three ") == ["one ", "two "]
    assert (limits.finish_reason, limits.tokens) == ("length", 2)


def test_an_answer_that_ends_by_itself_stopped() -> None:
    limits = AnswerLimits([], max_tokens=10)
    shown(limits, "one")
    assert limits.finish_reason == "stop"


@given(st.text("abE ND", max_size=40), st.lists(st.text("aEND", min_size=1, max_size=4), max_size=3), st.data())
def test_however_an_answer_is_cut_into_pieces_the_same_text_is_shown(
    answer: str, stop: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    ends = [at for each in stop if (at := answer.find(each)) >= 0]
    # A longer stop string may begin earlier and be complete later than a shorter one inside it; either end is right.
    allowed = {answer[:at] for at in ends} or {answer}
    assert "".join(shown(AnswerLimits(stop, max_tokens=None), *pieces)) in allowed


@pytest.mark.parametrize("tokens", [1, 3])
def test_usage_counts_what_the_backend_wrote(tokens: int) -> None:
    limits = AnswerLimits([], max_tokens=None)
    limits.feed(Piece("x", tokens=tokens))
    assert limits.tokens == tokens
