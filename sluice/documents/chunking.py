"""Blocks of text cut into chunks: whole sentences under one heading, no longer than the embedding model reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Final, TypeVar

from sluice.documents.sentences import sentences
from sluice.documents.text import Block, BlockKind, Span

# Part of every chunk's identity: raise it when the same blocks would give other chunks.
CHUNKER_VERSION: Final = "2"

CountTokens = Callable[[Sequence[str]], list[int]]

_TOP_LEVEL: Final = 1
# A lower heading starts a new chunk once this share of the limit is filled; before, short sections share a chunk.
_FULL_ENOUGH: Final = 1 / 3
_BATCH: Final = 256
_HEADING_CHARACTERS: Final = 200  # of a heading in `heading_path`; its text in the chunk is whole
_PROSE: Final = frozenset({BlockKind.PARAGRAPH, BlockKind.LIST_ITEM})
_DENSE: Final = frozenset({BlockKind.LIST_ITEM, BlockKind.TABLE_ROW, BlockKind.CODE})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage as it is embedded, stored and cited; `spans` are offsets into its text."""

    ordinal: int
    text: str
    token_count: int
    page: int | None
    last_page: int | None
    heading_path: tuple[str, ...]
    spans: tuple[Span, ...]
    lang: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is kept whole if it can be: a heading, a sentence, a table row or a line of code."""

    kind: BlockKind
    text: str
    tokens: int
    level: int | None
    page: int | None
    spans: tuple[Span, ...]
    path: tuple[str, ...]
    opens_block: bool


@dataclass(frozen=True, slots=True)
class _Limits:
    max_tokens: int
    overlap_tokens: int
    # What the tokenizer adds to every text, such as [CLS] and [SEP].
    frame_tokens: int

    @property
    def room(self) -> int:
        return self.max_tokens - self.frame_tokens


def chunk(
    blocks: Iterable[Block],
    *,
    count_tokens: CountTokens,
    detect: Callable[[str], str],
    max_tokens: int,
    overlap_tokens: int,
    headings: Mapping[int, str] | None = None,
    first_ordinal: int = 0,
) -> Iterator[Chunk]:
    """The chunks of a document in order, made while its blocks stream in; the same blocks always give the same chunks.

    Where the blocks are a later part of a document, `headings` stand above it and `first_ordinal` is its first chunk's.

    No chunk has more than `max_tokens` by `count_tokens`, or holds text of two top-level sections. A chunk that ends
    because it is full repeats up to `overlap_tokens` of its last sentences at the start of the next.
    """
    limits = _Limits(max_tokens, overlap_tokens, frame_tokens=count_tokens([""])[0])
    pieces = _fitting(_pieces(blocks, dict(headings or {})), count_tokens, limits)
    ordinal = first_ordinal
    for group in _batched(_packed(pieces, limits), _BATCH // 4):
        for members, text, tokens in _checked(group, count_tokens, limits):
            yield _chunk_of(members, text, ordinal=ordinal, token_count=tokens, lang=detect(text))
            ordinal += 1


def headings_with(headings: dict[int, str], block: Block) -> dict[int, str]:
    """The headings by level that stand above what follows the block, given those above the block."""
    if block.kind is not BlockKind.HEADING:
        return headings
    level = block.level or _TOP_LEVEL
    above = {lvl: text for lvl, text in headings.items() if lvl < level}
    return above | {level: block.text[:_HEADING_CHARACTERS]}


def _pieces(blocks: Iterable[Block], headings: dict[int, str]) -> Iterator[_Piece]:
    """The blocks cut at sentence and line ends, each piece knowing the headings above it; tokens not counted yet."""
    for block in blocks:
        headings = headings_with(headings, block)
        path = tuple(headings.values())
        for number, (start, end) in enumerate(_cuts(block)):
            spans = _clipped(block.spans, start, end)
            yield _Piece(
                kind=block.kind,
                text=block.text[start:end],
                tokens=0,
                level=block.level,
                page=spans[0].page if spans else block.page,
                spans=spans,
                path=path,
                opens_block=number == 0,
            )


def _cuts(block: Block) -> Iterator[tuple[int, int]]:
    """Where a block may be cut, as offsets (start, end)."""
    if block.kind in _PROSE:
        yield from sentences(block.text)
    elif block.kind is BlockKind.CODE:
        start = 0
        for line in block.text.split("\n"):
            if line.strip():
                yield start, start + len(line)
            start += len(line) + 1
    elif block.text.strip():
        yield 0, len(block.text)


def _clipped(spans: Iterable[Span], start: int, end: int) -> tuple[Span, ...]:
    """The spans of the stretch, as offsets into it; a box stays that of the whole line."""
    return tuple(
        Span(max(span.start, start) - start, min(span.end, end) - start, span.page, span.box)
        for span in spans
        if span.start < end and span.end > start
    )


def _fitting(pieces: Iterator[_Piece], count_tokens: CountTokens, limits: _Limits) -> Iterator[_Piece]:
    """The pieces with their tokens counted, those too long for a chunk of their own cut between words."""
    for batch in _batched(pieces, _BATCH):
        counts = count_tokens([piece.text for piece in batch])
        for piece, count in zip(batch, counts, strict=True):
            counted = replace(piece, tokens=count - limits.frame_tokens)
            if counted.tokens <= limits.room:
                yield counted
            else:
                yield from _halved(counted, count_tokens, limits)


def _halved(piece: _Piece, count_tokens: CountTokens, limits: _Limits) -> Iterator[_Piece]:
    """The piece cut in two near its middle, again and again until every part fits."""
    waiting = deque([piece])
    while waiting:
        first = waiting.popleft()
        if first.tokens <= limits.room or len(first.text) == 1:
            yield first
            continue
        halves = [_part(first, *stretch) for stretch in _stretches(first.text)]
        counts = count_tokens([half.text for half in halves])
        counted = [replace(h, tokens=c - limits.frame_tokens) for h, c in zip(halves, counts, strict=True)]
        waiting.extendleft(reversed(counted))


def _stretches(text: str) -> Iterator[tuple[int, int]]:
    """The two halves of a text as offsets, cut at the blank nearest the middle, or in the middle of a lone word."""
    middle = len(text) // 2
    before, after = text.rfind(" ", 1, middle), text.find(" ", middle, len(text) - 1)
    blanks = [blank for blank in (before, after) if blank > 0]
    if not blanks:
        yield from ((0, middle), (middle, len(text)))
        return
    cut = min(blanks, key=lambda blank: abs(blank - middle))
    yield from ((0, cut), (cut + 1, len(text)))


def _part(piece: _Piece, start: int, end: int) -> _Piece:
    spans = _clipped(piece.spans, start, end)
    return replace(
        piece,
        text=piece.text[start:end],
        spans=spans,
        page=spans[0].page if spans else piece.page,
        opens_block=piece.opens_block and start == 0,
    )


def _packed(pieces: Iterator[_Piece], limits: _Limits) -> Iterator[list[_Piece]]:
    """The pieces of each chunk, by the sum of their tokens."""
    current: list[_Piece] = []
    filled = 0
    for piece in pieces:
        if current and _starts_anew(piece, current, filled, limits):
            yield current
            current, filled = [], 0
        elif current and filled + piece.tokens > limits.room:
            ended, current = _turned(current, piece, limits)
            yield ended
            filled = sum(p.tokens for p in current)
        current.append(piece)
        filled += piece.tokens
    if current:
        yield current


def _starts_anew(piece: _Piece, current: list[_Piece], filled: int, limits: _Limits) -> bool:
    """Whether this heading must not share a chunk with what is above it."""
    if piece.kind is not BlockKind.HEADING or all(p.kind is BlockKind.HEADING for p in current):
        return False
    return (piece.level or _TOP_LEVEL) <= _TOP_LEVEL or filled >= limits.room * _FULL_ENOUGH


def _turned(full: list[_Piece], following: _Piece, limits: _Limits) -> tuple[list[_Piece], list[_Piece]]:
    """A full chunk as it ends, and how the next one begins: headings that stood last, else an overlap of sentences."""
    room = limits.room - following.tokens
    body = len(full)
    while body and full[body - 1].kind is BlockKind.HEADING:
        body -= 1
    if 0 < body < len(full) and sum(piece.tokens for piece in full[body:]) <= room:
        return full[:body], full[body:]
    return full, _overlap(full, min(room, limits.overlap_tokens))


def _overlap(pieces: list[_Piece], most_tokens: int) -> list[_Piece]:
    """The last sentences that together have at most so many tokens."""
    repeated: deque[_Piece] = deque()
    for piece in reversed(pieces[1:]):
        most_tokens -= piece.tokens
        if piece.kind not in _PROSE or most_tokens < 0:
            break
        repeated.appendleft(piece)
    return list(repeated)


def _checked(
    group: Sequence[list[_Piece]], count_tokens: CountTokens, limits: _Limits
) -> Iterator[tuple[list[_Piece], str, int]]:
    """The groups with their text and its exact token count; tokens do not quite add up with every tokenizer."""
    texts = [_joined(members) for members in group]
    for members, text, count in zip(group, texts, count_tokens(texts), strict=True):
        if count <= limits.max_tokens or len(members) == 1:
            yield members, text, count
        else:
            half = len(members) // 2
            yield from _checked([members[:half], members[half:]], count_tokens, limits)


def _joined(members: list[_Piece]) -> str:
    return "".join(separator + piece.text for separator, piece in _laid_out(members))


def _laid_out(members: list[_Piece]) -> Iterator[tuple[str, _Piece]]:
    """Each piece with what stands before it: a blank in a paragraph, a line break in a list, table or piece of code."""
    yield "", members[0]
    for before, piece in pairwise(members):
        if not piece.opens_block:
            yield "\n" if piece.kind is BlockKind.CODE else " ", piece
        else:
            yield "\n" if piece.kind is before.kind and piece.kind in _DENSE else "\n\n", piece


def _chunk_of(members: list[_Piece], text: str, *, ordinal: int, token_count: int, lang: str) -> Chunk:
    spans: list[Span] = []
    offset = 0
    for separator, piece in _laid_out(members):
        offset += len(separator)
        spans += [replace(span, start=span.start + offset, end=span.end + offset) for span in piece.spans]
        offset += len(piece.text)
    pages = [span.page for span in spans] or [piece.page for piece in members if piece.page is not None]
    return Chunk(
        ordinal=ordinal,
        text=text,
        token_count=token_count,
        page=min(pages, default=None),
        last_page=max(pages, default=None),
        heading_path=_common_path(members),
        spans=tuple(spans),
        lang=lang,
    )


def _common_path(members: list[_Piece]) -> tuple[str, ...]:
    """The headings that stand above all of the text."""
    paths = [piece.path for piece in members if piece.kind is not BlockKind.HEADING] or [members[-1].path]
    shared: list[str] = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return tuple(shared)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
