from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.documents.text import Block, BlockKind, Line, Span, join_lines, normalize, one_line

BOX = (72.0, 700.0, 300.0, 712.0)


def joined(*lines: str) -> str:
    return join_lines(Line(line, 1, BOX) for line in lines)[0]


def test_a_block_survives_the_way_through_json() -> None:
    block = Block(
        BlockKind.HEADING, "Глава 1\t«Цели»", level=2, page=3, spans=(Span(0, 7, 3, BOX), Span(8, 14, 4, BOX))
    )

    line = block.to_json()

    assert "\n" not in line
    assert Block.from_json(line) == block


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("The main-", "tainer reads", "The maintainer reads"),
        ("сопрово-", "ждающий", "сопровождающий"),
        ("soft\u00ad", "ware", "software"),
        ("2024-", "2025", "2024-2025"),
        ("a CPU-", "only machine", "a CPU-only machine"),
        ("Jean-", "Paul", "Jean-Paul"),
        ("кто-", "нибудь", "кто-нибудь"),
        ("state-of-", "the-art", "state-of-the-art"),
        ("one", "two", "one two"),
        ("a dash -", "and more", "a dash - and more"),
    ],
)
def test_words_broken_at_line_ends_are_mended(before: str, after: str, expected: str) -> None:
    assert joined(before, after) == expected


def test_every_line_keeps_the_exact_place_of_its_text() -> None:
    lines = [Line("The main-", 1, BOX), Line("tainer reads", 1, (72.0, 680.0, 300.0, 692.0)), Line("on.", 2, BOX)]

    text, spans = join_lines(lines)

    assert [text[span.start : span.end] for span in spans] == ["The main", "tainer reads", "on."]
    assert [(span.page, span.box) for span in spans] == [(line.page, line.box) for line in lines]


@given(st.lists(st.text(alphabet="abcд -\u00ad\u2010", max_size=12), max_size=8))
def test_spans_of_lines_never_overlap_or_leave_the_text(lines: list[str]) -> None:
    text, spans = join_lines(Line(line, 1, BOX) for line in lines)

    borders = [border for span in spans for border in (span.start, span.end)]
    assert borders == sorted(borders)
    assert all(0 <= border <= len(text) for border in borders)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("e\u0301", "é"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("a\u00a0b\u202fc", "a b c"),
        ("hid\u00adden\u200b\ufeff", "hidden"),
        ("bell\x07 null\x00 \x1b[0m", "bell null [0m"),
        ("pay \u202eevil\u202c", "pay evil"),
        ("\ufb01nal \ufb02ow", "final flow"),
        ("broken \ud800 pair", "broken  pair"),
        ("tab\tstays", "tab\tstays"),
    ],
)
def test_text_is_normalized(raw: str, clean: str) -> None:
    assert normalize(raw) == clean


@given(st.text())
def test_normalized_text_can_be_stored_and_stays_as_it_is(raw: str) -> None:
    clean = normalize(raw)

    assert "\x00" not in clean.encode().decode()
    assert normalize(clean) == clean


def test_one_line_has_no_white_space_but_single_blanks() -> None:
    assert one_line("  a \n\t b\u00a0\u00a0c ") == "a b c"
