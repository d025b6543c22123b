"""Texts are cut where llama.cpp would not survive them, and nowhere else."""

from __future__ import annotations

import re
import time

import pytest

from services.llm.backends.llama_cpp.runs import LONGEST_RUN, parts_of

LONG = 3 * LONGEST_RUN + 7


@pytest.mark.parametrize(
    "text", ["", "a", "The locks of the canal. " * 5000, "a" * LONGEST_RUN + " " * LONGEST_RUN + "b" * LONGEST_RUN]
)
def test_a_text_whose_words_end_is_one_part(text: str) -> None:
    assert parts_of(text, ["<|im_end|>"]) == [text]


@pytest.mark.parametrize("run", ["a", " ", "ж", "\n", "😀", "a\x1c", "\u2003"])
def test_a_long_run_is_cut_and_nothing_is_lost(run: str) -> None:
    text = f"What is before, {run * LONG}, and behind. {run * LONG}"

    parts = parts_of(text)

    assert "".join(parts) == text
    assert parts[0].startswith("What is before, ")
    assert all(parts)
    longest = max(len(found) for part in parts for found in re.findall(r"[\S\x1c]+|[^\S\x1c]+", part))
    assert longest == LONGEST_RUN


@pytest.mark.parametrize("at", range(LONGEST_RUN - 12, LONGEST_RUN + 2))
def test_the_name_of_a_token_is_not_cut(at: int) -> None:
    name = "<|im_end|>"
    text = "a" * at + name + "b" * LONG

    parts = parts_of(text, ["<|im_start|>", name, "x" * LONG])

    assert "".join(parts) == text
    assert sum(part.count(name) for part in parts) == 1
    assert max(map(len, parts)) <= LONGEST_RUN


def test_looking_for_runs_takes_no_longer_where_they_are_almost_too_long() -> None:
    text = ("a" * (LONGEST_RUN - 1) + " ") * 250
    began = time.process_time()

    assert parts_of(text) == [text]

    # A million characters: milliseconds, or a minute if each of them were the beginning of a search.
    assert time.process_time() - began < 5
