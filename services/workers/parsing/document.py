"""What every parser takes and gives."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from sluice.errors import DocumentUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sluice.documents.text import Block
    from sluice.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """Limits of reading one document, and whether scans are read."""

    memory_bytes: int = 1024**3
    timeout_seconds: float = 120.0
    max_unpacked_bytes: int = 512 * 1024**2
    max_unpack_ratio: int = 200
    ocr: bool = False
    ocr_languages: str = "eng+rus"

    @classmethod
    def of(cls, settings: IngestSettings) -> ParseOptions:
        """The options that the settings of ingest ask for."""
        return cls(
            memory_bytes=settings.parse_memory_bytes,
            timeout_seconds=settings.parse_timeout_seconds,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            max_unpack_ratio=settings.max_unpack_ratio,
            ocr=settings.ocr,
            ocr_languages=settings.ocr_languages,
        )

    def to_json(self) -> str:
        """The options on their way into the child process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> ParseOptions:
        """The options that `to_json` wrote."""
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document as it opens: its blocks are read from the file while they are iterated."""

    blocks: Iterator[Block]
    title: str | None = None
    pages: int | None = None
    encoding: str | None = None


class Parser(Protocol):
    """A module of this package that reads one format; raises `DocumentUnreadable`, at once or while iterating."""

    def parse(self, path: Path, options: ParseOptions) -> ParsedDocument:
        """The document in the file."""


def damaged(detail: str) -> DocumentUnreadable:
    """The file is not a whole document of its type."""
    return DocumentUnreadable(detail, code="damaged")


def encrypted(detail: str) -> DocumentUnreadable:
    """The file opens only with a password."""
    return DocumentUnreadable(detail, code="encrypted")


def too_complex(detail: str) -> DocumentUnreadable:
    """Reading the file would take more than this installation allows."""
    return DocumentUnreadable(detail, code="too_complex")


def no_text(detail: str) -> DocumentUnreadable:
    """There is nothing in the file that could be searched."""
    return DocumentUnreadable(detail, code="no_text")
