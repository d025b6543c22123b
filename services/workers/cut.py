"""How far a text is cut into chunks: what the next stretch needs to know of those before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from sluice.documents.chunking import headings_with
from sluice.documents.text import Block, BlockKind

# Cut and written down in half a minute even on a busy machine. Part of what makes the same blocks give the same chunks,
# as no chunk reaches over the end of a stretch: see `CHUNKER_VERSION`.
STRETCH: Final = 16_384


@dataclass
class Cut:
    """The blocks that are cut, the chunks that came of them, and the headings that stand above what follows."""

    blocks: int = 0
    chunks: int = 0
    headings: dict[int, str] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, checkpoint: dict[str, Any]) -> Self:
        """As an earlier attempt or turn has left it."""
        kept = checkpoint.get("cut")
        if kept is None:
            return cls()
        headings = {int(level): text for level, text in kept["headings"]}
        return cls(kept["blocks"], kept["chunks"], headings, Counter(kept["languages"]))

    def as_checkpoint(self) -> dict[str, Any]:
        """What `of` reads."""
        return {
            "blocks": self.blocks,
            "chunks": self.chunks,
            "headings": [[level, text] for level, text in self.headings.items()],
            "languages": dict(self.languages),
        }

    def stretch(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks up to where the text may be parted, which is never below a heading."""
        for taken, block in enumerate(blocks, start=1):
            self.blocks += 1
            self.headings = headings_with(self.headings, block)
            yield block
            if taken >= STRETCH and block.kind is not BlockKind.HEADING:
                return

    def count(self, languages: Iterable[str]) -> None:
        """Chunks in these languages were written down."""
        before = self.languages.total()
        self.languages.update(languages)
        self.chunks += self.languages.total() - before

    def usual_language(self) -> str:
        """The language of most chunks."""
        return self.languages.most_common(1)[0][0]
