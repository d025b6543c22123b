"""From an [n] in a streamed answer to the place that bears the sentence out."""

from __future__ import annotations

from uuid import uuid4

import pytest

from sluice.chat.citations import CitationReader, Cited
from sluice.retrieval.passages import Passage

TEXT = "Only the maintainer may orphan a package. The team then\nlooks after it. Nobody else may."
SPANS: list[list[float]] = [
    [0, 41, 3, 10, 700, 300, 712],
    [42, 55, 3, 10, 686, 200, 698],
    [56, 88, 4, 10, 760, 250, 772],
]


def passage(text: str = TEXT, spans: list[list[float]] | None = None, page: int | None = 3) -> Passage:
    return Passage(
        chunk_id=uuid4(),
        document_id=uuid4(),
        document_name="manual.pdf",
        source_id=uuid4(),
        version_id=uuid4(),
        version=1,
        mime="application/pdf",
        lang="en",
        text=text,
        text_hash=b"",
        page=page,
        last_page=4,
        heading_path=[],
        spans=SPANS if spans is None else spans,
    )


def read(answer: str, *passages: Passage, pieces: int = 1) -> list[Cited]:
    """What is cited in the answer, fed in pieces of so many characters."""
    reader = CitationReader(passages or (passage(),))
    return [cited for at in range(0, len(answer), pieces) for cited in reader.feed(answer[at : at + pieces])]


@pytest.mark.parametrize("pieces", [1, 2, 7, 1000])
def test_a_citation_is_the_same_however_the_answer_is_cut(pieces: int) -> None:
    answer = "Only the maintainer may orphan a package. [1] The team then looks after it. [1]"

    found = read(answer, pieces=pieces)

    assert [(cited.number, cited.quote) for cited in found] == [
        (1, "Only the maintainer may orphan a package."),
        (1, "The team then looks after it."),
    ]


def test_a_citation_is_reported_as_soon_as_its_mark_is_complete() -> None:
    reader = CitationReader([passage()])

    assert list(reader.feed("Nobody else may. [")) == []
    assert list(reader.feed("1")) == []
    assert [cited.quote for cited in reader.feed("]")] == ["Nobody else may."]
    assert list(reader.feed(" More words")) == []


def test_a_quoted_sentence_has_its_own_page_and_boxes() -> None:
    (first,) = read("Only the maintainer may orphan a package. [1]")
    (second,) = read("The team then looks after it. [1]")

    assert (first.page, first.boxes) == (3, [[3, 10, 700, 300, 712]])
    assert (second.page, second.boxes) == (3, [[3, 10, 686, 200, 698], [4, 10, 760, 250, 772]])


def test_line_breaks_do_not_keep_a_quotation_from_being_found() -> None:
    (cited,) = read("looks\n\nafter   it. [1]")

    assert cited.page == 4


def test_other_words_cite_the_whole_passage() -> None:
    (cited,) = read("Orphaning is for maintainers alone [1]")

    assert (cited.page, len(cited.boxes)) == (3, 3)


def test_a_passage_without_boxes_gives_its_page() -> None:
    assert [cited.page for cited in read("Nobody else may. [1]", passage(spans=[], page=7))] == [7]
    assert [cited.page for cited in read("Nobody else may. [1]", passage(spans=[], page=None))] == [None]


@pytest.mark.parametrize("mark", ["[0]", "[2]", "[999]"])
def test_a_number_without_a_passage_is_ignored(mark: str) -> None:
    assert read(f"Nobody else may. {mark}") == []


@pytest.mark.parametrize("text", ["Nobody [else] may.", "[]", "[1", "1]", "[one]", "[1234]", "[-1]", "[ 1 ]"])
def test_what_is_not_a_mark_is_text(text: str) -> None:
    assert read(text) == []


def test_two_marks_in_a_row_speak_of_the_same_sentence() -> None:
    one, other = passage(), passage("Nobody else may. So it is written.")

    found = read("Nobody else may. [1][2]", one, other)

    assert [(cited.number, cited.quote, cited.passage) for cited in found] == [
        (1, "Nobody else may.", one),
        (2, "Nobody else may.", other),
    ]


def test_a_bracketed_number_that_the_document_itself_has_is_no_citation() -> None:
    scientific = passage("Water boils at 100 degrees [1] under normal pressure. Ice melts at zero.")

    found = read("Water boils at 100 degrees [1] under normal pressure. [1]", scientific)

    assert [cited.quote for cited in found] == ["Water boils at 100 degrees [1] under normal pressure."]


def test_signs_of_regular_expressions_in_a_quotation_are_only_signs() -> None:
    odd = passage("Use (a|b)* and $HOME/.* [sic] now.")

    assert [cited.quote for cited in read("Use (a|b)* and $HOME/.* [sic] now. [1]", odd)] == [
        "Use (a|b)* and $HOME/.* [sic] now."
    ]
