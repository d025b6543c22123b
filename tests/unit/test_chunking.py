from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.documents.chunking import Chunk, chunk
from sluice.documents.sentences import sentences
from sluice.documents.text import Block, BlockKind, Line, Span, join_lines

FRAME = 2  # what the tokenizer of these tests adds to every text


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Five characters of a word are a token."""
    return [FRAME + sum((len(word) + 4) // 5 for word in text.split()) for text in texts]


def cut(blocks: Sequence[Block], *, max_tokens: int = 40, overlap_tokens: int = 0) -> list[Chunk]:
    return list(
        chunk(
            iter(blocks),
            count_tokens=count_tokens,
            detect=lambda _: "en",
            max_tokens=max_tokens,
            overlap_tokens=overlap_tokens,
        )
    )


def heading(text: str, level: int = 1) -> Block:
    return Block(BlockKind.HEADING, text, level=level)


def paragraph(text: str) -> Block:
    return Block(BlockKind.PARAGRAPH, text)


def prose(sentence_count: int, word: str = "word") -> str:
    return " ".join(f"Sentence {number} has a {word} or two." for number in range(sentence_count))


def test_a_short_document_is_one_chunk_with_its_headings() -> None:
    [only] = cut([heading("Guide"), heading("Setup", 2), paragraph("Install it. Run it.")])

    assert only.text == "Guide\n\nSetup\n\nInstall it. Run it."
    assert only.heading_path == ("Guide", "Setup")
    assert only.token_count == count_tokens([only.text])[0]


def test_no_chunk_spans_two_top_level_sections() -> None:
    chunks = cut([heading("One"), paragraph("First."), heading("Two"), paragraph("Second.")])

    assert [(c.text, c.heading_path) for c in chunks] == [("One\n\nFirst.", ("One",)), ("Two\n\nSecond.", ("Two",))]


def test_short_sections_share_a_chunk_under_the_heading_they_have_in_common() -> None:
    [only] = cut([heading("Guide"), heading("A", 2), paragraph("First."), heading("B", 2), paragraph("Second.")])

    assert only.heading_path == ("Guide",)


def test_a_heading_goes_with_the_text_below_it() -> None:
    chunks = cut([paragraph(prose(4)), heading("Next part", 2), paragraph(prose(3, "thing"))], max_tokens=34)

    assert not any(c.text.endswith("Next part") for c in chunks)
    assert any(c.text.startswith("Next part\n\n") for c in chunks)


def test_sentences_are_kept_whole() -> None:
    text = prose(30)

    whole = {text[start:end] for start, end in sentences(text)}
    pieces = [piece for c in cut([paragraph(text)]) for piece in (c.text[a:b] for a, b in sentences(c.text))]
    assert set(pieces) == whole


def test_a_sentence_too_long_for_a_chunk_is_cut_between_words() -> None:
    words = [f"word{number}" for number in range(200)]

    chunks = cut([paragraph(" ".join(words))])

    assert [word for c in chunks for word in c.text.split()] == words
    assert all(c.token_count <= 40 for c in chunks)


def test_a_word_too_long_for_a_chunk_is_cut_as_well() -> None:
    chunks = cut([paragraph("x" * 5000)])

    assert "".join(c.text for c in chunks).replace(" ", "") == "x" * 5000
    assert all(c.token_count <= 40 for c in chunks)


def test_a_full_chunk_repeats_its_last_sentences_in_the_next() -> None:
    chunks = cut([paragraph(prose(30))], overlap_tokens=12)

    assert len(chunks) > 3
    for before, after in pairwise(chunks):
        first = after.text.split(".")[0] + "."
        assert before.text.endswith(first)


def test_nothing_is_repeated_across_a_top_heading() -> None:
    chunks = cut([heading("One"), paragraph(prose(3)), heading("Two"), paragraph(prose(3))], overlap_tokens=12)

    assert [c.text.split("\n")[0] for c in chunks] == ["One", "Two"]


def test_rows_and_lines_of_code_are_kept_whole_and_on_lines_of_their_own() -> None:
    rows = [f"Package: tool-{number}; Maintainer: Anna" for number in range(20)]
    code = "def f():\n    return 1\n"

    chunks = cut([*(Block(BlockKind.TABLE_ROW, row) for row in rows), Block(BlockKind.CODE, code)])

    lines = [line for c in chunks for line in c.text.split("\n") if line]
    assert lines == [*rows, "def f():", "    return 1"]


def test_spans_point_to_the_same_text_in_the_chunk_as_on_the_page() -> None:
    lines = [
        Line(f"Line {n} of the page ends a sentence here.", n // 10 + 1, (0.0, float(n), 9.0, n + 1.0))
        for n in range(40)
    ]
    text, spans = join_lines(lines)

    chunks = cut([heading("Top"), Block(BlockKind.PARAGRAPH, text, page=1, spans=spans)], overlap_tokens=10)

    for c in chunks:
        for span in c.spans:
            number = int(span.box[1])
            assert c.text[span.start : span.end] == lines[number].text
            assert span.page == number // 10 + 1
        assert (c.page, c.last_page) == (min(s.page for s in c.spans), max(s.page for s in c.spans))


def test_the_page_of_a_block_without_spans_is_the_page_of_its_chunk() -> None:
    chunks = cut([Block(BlockKind.HEADING, "Slide", level=1, page=2), Block(BlockKind.PARAGRAPH, "Text.", page=2)])

    assert [(c.page, c.last_page) for c in chunks] == [(2, 2)]


def test_blocks_are_taken_only_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[Block]:
        nonlocal taken
        while True:
            taken += 1
            yield paragraph(prose(4))

    chunks = chunk(endless(), count_tokens=count_tokens, detect=lambda _: "en", max_tokens=40, overlap_tokens=0)
    next(chunks)

    assert taken < 2000


def test_a_document_without_text_has_no_chunks() -> None:
    assert cut([]) == []
    assert cut([paragraph("   ")]) == []


blocks_of_all_kinds = st.lists(
    st.builds(
        Block,
        kind=st.sampled_from(BlockKind),
        text=st.text(alphabet="ab Яя.!\n", min_size=1, max_size=120),
        level=st.integers(1, 3),
    ),
    max_size=25,
)


@given(blocks=blocks_of_all_kinds, max_tokens=st.integers(6, 40), overlap=st.integers(0, 10))
def test_whatever_the_document_the_limit_holds_and_nothing_is_lost(
    blocks: list[Block], max_tokens: int, overlap: int
) -> None:
    chunks = cut(blocks, max_tokens=max_tokens, overlap_tokens=overlap)
    unrepeated = cut(blocks, max_tokens=max_tokens)

    assert all(c.token_count <= max_tokens and c.text.strip() for c in [*chunks, *unrepeated])
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    assert letters(c.text for c in unrepeated) == letters(block.text for block in blocks)
    assert chunks == cut(blocks, max_tokens=max_tokens, overlap_tokens=overlap)


def letters(texts: Iterator[str]) -> str:
    return "".join("".join(text.split()) for text in texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith saw e.g. Fig. 3 of it. Then he left.", ["Dr. Smith saw e.g. Fig. 3 of it.", "Then he left."]),
        ("См. рис. 5 и т. д. на с. 7. Готово.", ["См. рис. 5 и т. д. на с. 7.", "Готово."]),
        ("А. С. Пушкин родился в Москве. Это так.", ["А. С. Пушкин родился в Москве.", "Это так."]),
        ("«Да!» Она ушла.", ["«Да!»", "Она ушла."]),
        ("これは文です。次の文。", ["これは文です。", "次の文。"]),
        ("version 1.2.3 is out", ["version 1.2.3 is out"]),
    ],
)
def test_sentences_end_where_a_reader_sees_them_end(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


def test_a_span_is_cut_where_its_sentence_is() -> None:
    text = "First sentence here. Second sentence here."
    block = Block(BlockKind.PARAGRAPH, text, page=1, spans=(Span(0, len(text), 1, (0.0, 0.0, 1.0, 1.0)),))

    chunks = cut([block], max_tokens=8)

    assert [[(s.start, s.end) for s in c.spans] for c in chunks] == [[(0, len(c.text))] for c in chunks]
    assert len(chunks) == 2
