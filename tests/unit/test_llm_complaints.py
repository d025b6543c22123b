"""The list of complaints in the handbook and the numbers in the tests are the same."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
# About embeddings (padding, arenas, batches of vectors), and 23, which is about several workers in one process tree.
NOT_OF_LLM = {20, 23, 24, 25, 27}


def test_each_complaint_is_checked_where_the_handbook_says_so() -> None:
    table = OPERATIONS.split("### What users of other model servers complain about")[1].split("\n## ")[0]
    documented = {
        int(number): set(re.findall(r"`(tests/[a-z_/]+\.py)`", places))
        for number, places in re.findall(r"^\| (\d+) \|.+\|(.+)\|$", table, flags=re.MULTILINE)
    }

    assert set(documented) == {*range(1, 32)} - NOT_OF_LLM
    assert documented == numbered_in_tests()


def numbered_in_tests() -> dict[int, set[str]]:
    found = defaultdict[int, set[str]](set)
    for file in (ROOT / "tests").glob("*/test_llm_*.py"):
        for numbers in re.findall(r'"""Complaints? ([\d, and]+)\.', file.read_text(encoding="utf-8")):
            for number in re.findall(r"\d+", numbers):
                found[int(number)].add(file.relative_to(ROOT).as_posix())
    return dict(found)
