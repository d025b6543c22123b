"""Texts that nobody has embedded yet, and the chunks that they must become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Final
from uuid import uuid4

from tokenizers import Tokenizer

from services.workers.parsing.plain import text_blocks
from sluice.documents import chunking
from sluice.documents.budget import measured_for
from sluice.documents.languages import detect
from sluice.embedding_client import HttpEmbeddingClient
from sluice.settings import EmbeddingClientSettings, IngestSettings

_SENTENCE: Final = "In year {n} the keeper {mark} counted {n} ships and wrote their names down."


def short(mark: str | None = None) -> bytes:
    """A text of three chunks."""
    return long(3, mark)


def long(chunks: int, mark: str | None = None) -> bytes:
    """A text of this many chunks: a section each, because a chunk never spans two."""
    mark = mark or new_mark()
    return "\n\n".join(
        f"Section {n} of {mark}\n=====\n\n{_SENTENCE.format(n=n, mark=mark)}" for n in range(chunks)
    ).encode()


def new_mark() -> str:
    """A word that is in no other text."""
    return f"k{uuid4().hex[:12]}"


class CalmReader:
    """Cuts texts into chunks in this process, with none of the machinery that the experiments break."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._emb = EmbeddingClientSettings(url=variables["SLUICE_EMB_URL"])
        self._ingest = IngestSettings()

    def chunks(self, content: bytes) -> list[str]:
        """The texts of the chunks of a plain text, in order."""
        blocks = text_blocks(f"{line}\n" for line in content.decode().splitlines())
        pieces = chunking.chunk(
            blocks,
            count_tokens=self._count_tokens,
            detect=detect,
            max_tokens=self._ingest.chunk_tokens,
            overlap_tokens=self._ingest.chunk_overlap_tokens,
        )
        return [piece.text for piece in pieces]

    @cached_property
    def _count_tokens(self) -> Callable[[Sequence[str]], list[int]]:
        with HttpEmbeddingClient(self._emb) as embedder:
            tokenizer = Tokenizer.from_str(embedder.tokenizer().decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()

        def count(texts: Sequence[str]) -> list[int]:
            return [len(one.ids) for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

        return measured_for(self._emb.languages, count)
