"""What every parser takes and gives."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sluice.errors import DocumentUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sluice.documents.reading import ReadingOptions
    from sluice.documents.text import Block
    from sluice.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """Limits of reading one document, whether scans are read, and what this document needs."""

    memory_bytes: int = 1024**3
    timeout_seconds: float = 120.0
    max_unpacked_bytes: int = 512 * 1024**2
    max_unpack_ratio: int = 200
    ocr: bool = False
    ocr_languages: str = "eng+rus"
    parser: str | None = None
    skip_pages: tuple[int, ...] = ()

    @classmethod
    def of(cls, settings: IngestSettings, wanted: ReadingOptions | None = None) -> ParseOptions:
        """The options that the settings of ingest ask for, and those that are wanted for this document."""
        return cls(
            memory_bytes=settings.parse_memory_bytes,
            timeout_seconds=settings.parse_timeout_seconds,
            max_unpacked_bytes=settings.max_unpacked_bytes,
            max_unpack_ratio=settings.max_unpack_ratio,
            ocr=settings.ocr if wanted is None or wanted.ocr is None else wanted.ocr,
            ocr_languages=settings.ocr_languages,
            parser=wanted.parser if wanted else None,
            skip_pages=wanted.skip_pages if wanted else (),
        )

    def wanted_pages(self, count: int) -> Iterator[int]:
        """The numbers of the pages to read, of so many."""
        left_out = frozenset(self.skip_pages)
        return (number for number in range(1, count + 1) if number not in left_out)

    def to_json(self) -> str:
        """The options on their way into the child process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> ParseOptions:
        """The options that `to_json` wrote."""
        return cls.restored(json.loads(line))

    @classmethod
    def restored(cls, record: dict[str, Any]) -> ParseOptions:
        """The options from their JSON."""
        return cls(**{**record, "skip_pages": tuple(record["skip_pages"])})


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document as it opens: its blocks are read from the file while they are iterated."""

    blocks: Iterator[Block]
    title: str | None = None
    pages: int | None = None
    encoding: str | None = None


class PageUnreadable(Exception):
    """A parser raised its cause while it read this page."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def reading_page(number: int) -> Iterator[None]:
    """Have whatever goes wrong inside say that it was on this page."""
    try:
        yield
    except DocumentUnreadable as error:
        error.facts.setdefault("page", number)
        raise
    except Exception as error:
        raise PageUnreadable(number) from error


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
