"""A long text cut stretch by stretch: the same chunks, whoever goes on with it and when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice

from services.workers.cut import STRETCH, Cut
from sluice.documents import chunking
from sluice.documents.chunking import Chunk
from sluice.documents.text import Block, BlockKind

SECTION = 1000


def blocks(count: int) -> Iterator[Block]:
    """Short paragraphs, a heading before every thousand of them."""
    for number in range(count):
        if number % SECTION == 0:
            yield Block(BlockKind.HEADING, f"Section {number // SECTION}", level=1)
        yield Block(BlockKind.PARAGRAPH, f"Paragraph {number} says little.")


def count_tokens(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def next_stretch(cut: Cut, rest: Iterator[Block]) -> list[Chunk]:
    made = list(
        chunking.chunk(
            cut.stretch(rest),
            count_tokens=count_tokens,
            detect=lambda _: "en",
            max_tokens=40,
            overlap_tokens=8,
            headings=cut.headings,
            first_ordinal=cut.chunks,
        )
    )
    cut.count(chunk.lang for chunk in made)
    return made


def cut_whole(count: int) -> list[Chunk]:
    cut, rest, made = Cut(), blocks(count), []
    while stretch := next_stretch(cut, rest):
        made += stretch
    return made


def test_a_text_of_one_stretch_is_cut_as_a_whole() -> None:
    made = list(
        chunking.chunk(blocks(5000), count_tokens=count_tokens, detect=lambda _: "en", max_tokens=40, overlap_tokens=8)
    )

    assert cut_whole(5000) == made


def test_going_on_from_a_checkpoint_gives_the_chunks_of_an_uninterrupted_run() -> None:
    count = 2 * STRETCH + 100
    made: list[Chunk] = []
    cut = Cut()
    while True:
        rest = islice(blocks(count), cut.blocks, None)
        stretch = next_stretch(cut, rest)
        if not stretch:
            break
        made += stretch
        cut = Cut.of(json.loads(json.dumps({"cut": cut.as_checkpoint()})))

    assert made == cut_whole(count)
    assert [chunk.ordinal for chunk in made] == list(range(len(made)))
    assert cut.chunks == len(made)
    assert cut.usual_language() == "en"


def test_what_follows_a_seam_still_stands_under_its_heading() -> None:
    for chunk in cut_whole(STRETCH + 2000):
        last = int(chunk.text.split("Paragraph ")[-1].split()[0])
        assert chunk.heading_path == (f"Section {last // SECTION}",)


def test_a_stretch_never_ends_below_a_heading() -> None:
    texts = [Block(BlockKind.PARAGRAPH, "Text.")] * (STRETCH - 1)
    heading = Block(BlockKind.HEADING, "Heading", level=1)
    after = Block(BlockKind.PARAGRAPH, "Below.")
    cut = Cut()

    taken = list(cut.stretch(iter([*texts, heading, after, after])))

    assert taken[-2:] == [heading, after]
    assert (cut.blocks, cut.headings) == (STRETCH + 1, {1: "Heading"})
