"""Real texts to embed: what Debian says of its packages, in a line and in a paragraph; else the sample documents."""

from __future__ import annotations

import re
from pathlib import Path

from sluice.embedding_models.calibration_texts import shipped_texts
from sluice.embedding_models.judging import questions_and_passages

_INSTALLED = Path("/var/lib/dpkg/status")
_AVAILABLE = Path("/var/lib/apt/lists")
_DESCRIPTION = re.compile(r"^Description(?:-en)?: (.+)\n((?: .*\n?)+)", re.MULTILINE)
_LEAST_CHARACTERS = 80
_LEAST_PAIRS = 300
_MOST_PAIRS = 800


def questions_and_answers() -> tuple[list[str], list[str], str]:
    """Short texts, the long texts that they should find, and where they are from."""
    pairs: dict[str, str] = {}
    for file in (_INSTALLED, *sorted(_AVAILABLE.glob("*Translation-en"))):
        if file.is_file():
            content = file.read_text(encoding="utf-8", errors="replace")
            for short, long in _DESCRIPTION.findall(content):
                paragraph = " ".join(line.strip() for line in long.splitlines() if line.strip() != ".")
                if len(paragraph) >= _LEAST_CHARACTERS:
                    pairs.setdefault(paragraph, short)
    if len(pairs) < _LEAST_PAIRS:
        questions, passages = questions_and_passages(shipped_texts(("en",)).to_judge)
        return questions, passages, "paragraphs of the Debian FAQ"
    step = max(1, len(pairs) // _MOST_PAIRS)
    chosen = list(pairs.items())[::step][:_MOST_PAIRS]
    return [short for _, short in chosen], [long for long, _ in chosen], "descriptions of Debian packages"
