"""Where sentences begin and end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[begin:end] for begin, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rains. We stay in! Do you?", ["It rains.", "We stay in!", "Do you?"]),
        ("Use a tool, e.g. Lintian, before you upload.", ["Use a tool, e.g. Lintian, before you upload."]),
        ("See Fig. 3 and Sec. 4.2. Then go on.", ["See Fig. 3 and Sec. 4.2.", "Then go on."]),
        ("It needs v. 1.2 or later. It is small.", ["It needs v. 1.2 or later.", "It is small."]),
        ("Dr. A. B. Smith wrote it. It helps.", ["Dr. A. B. Smith wrote it.", "It helps."]),
        ("Пакет готов, т. е. собран. Загрузите его.", ["Пакет готов, т. е. собран.", "Загрузите его."]),
        ("Берите файлы, журналы и т. д. Затем проверьте.", ["Берите файлы, журналы и т. д.", "Затем проверьте."]),
        ("См. рис. 5 на стр. 12. Там схема.", ["См. рис. 5 на стр. 12.", "Там схема."]),
        ("5.6.2. Uploading to delayed. Run this.", ["5.6.2. Uploading to delayed.", "Run this."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ('Read the log. "dpkg" writes it.', ["Read the log.", '"dpkg" writes it.']),
        ("Wait... what happens? Nothing.", ["Wait... what happens?", "Nothing."]),
        ("The file debian/rules. is wrong", ["The file debian/rules. is wrong"]),
        ("First paragraph\n\nSecond one.", ["First paragraph", "Second one."]),
        ("Do this:\n- take it\n- leave it.", ["Do this:", "take it", "leave it."]),
        ("A line that was broken\nfor want of room. Next.", ["A line that was broken\nfor want of room.", "Next."]),
        (
            "Retiring\nA developer who leaves the project should say so and hand over the packages.",
            ["Retiring", "A developer who leaves the project should say so and hand over the packages."],
        ),
        ("", []),
        (" \n ", []),
    ],
)
def test_a_text_is_split_as_a_reader_would(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text('аБ aB.!?…\n-1 «»")', max_size=200))
def test_spans_are_ordered_apart_and_hold_text(text: str) -> None:
    at = 0
    for begin, end in sentence_spans(text):
        assert at <= begin < end <= len(text)
        assert text[begin:end] == text[begin:end].strip()
        at = end
