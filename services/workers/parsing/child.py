"""The process that reads one document: `python -m services.workers.parsing.child`, started by `sandbox`.

It takes a request as one JSON object on stdin, writes blocks to the output file, a line of JSON each, and reports on
stdout, a line of JSON each: any number of `progress`, then one of `report` and `failure`.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from services.workers.parsing import limits
from services.workers.parsing.document import PageUnreadable, ParseOptions, damaged, no_text, too_complex
from services.workers.parsing.formats import parser_for
from sluice.documents.media_types import ACCEPTED, PDF
from sluice.errors import SluiceError

if TYPE_CHECKING:
    from services.workers.parsing.document import ParsedDocument
    from sluice.documents.text import Block
    from sluice.errors import DocumentUnreadable

_BYTES_PER_KIBIBYTE: Final = 1024
_MOST_TEXT_PER_BYTE: Final = 4  # output may take this many times the unpacked limit: JSON and boxes around the text


@dataclass(frozen=True, slots=True)
class Request:
    """What the parent asks for."""

    path: str
    mime: str
    output: str
    parent: int
    options: ParseOptions

    def to_json(self) -> str:
        """The request on its way to the child."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Request:
        """The request that `to_json` wrote."""
        record = json.loads(line)
        return cls(**{**record, "options": ParseOptions.restored(record["options"])})


class _Progress:
    """Reports pages as they are reached."""

    def __init__(self, reports: IO[str], pages: int | None) -> None:
        self._reports = reports
        self._pages = pages
        self._reached = 0

    def reach(self, block: Block) -> None:
        if self._pages is not None and block.page is not None and block.page > self._reached:
            self._reached = block.page
            _send(self._reports, progress=[block.page, self._pages])


def main() -> None:
    """Serve the one request on stdin."""
    request = Request.from_json(sys.stdin.readline())
    reports = _own_stdout()
    limits.die_with_parent(request.parent)
    limits.confine(
        memory_bytes=request.options.memory_bytes,
        cpu_seconds=request.options.timeout_seconds,
        file_bytes=request.options.max_unpacked_bytes * _MOST_TEXT_PER_BYTE,
    )
    try:
        _send(reports, report=_read(request, reports))
    except SluiceError as error:
        _send(reports, failure={"code": error.code, "detail": error.detail, "page": error.facts.get("page")})


def _own_stdout() -> IO[str]:
    """Stdout for reports alone: what libraries print there goes to stderr."""
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return reports


def _send(reports: IO[str], **message: Any) -> None:
    reports.write(json.dumps(message) + "\n")


def _read(request: Request, reports: IO[str]) -> dict[str, Any]:
    """Read the document into the output file; whatever its content causes becomes a `DocumentUnreadable`."""
    parser = parser_for(request.mime, request.options.parser)
    path = Path(request.path)
    path.stat()  # a file that is not there says nothing about the document: let it end this process
    try:
        document = parser.parse(path, request.options)
        return _written(document, request, reports)
    except SluiceError:
        raise
    except Exception as error:
        # Parsers raise anything at all on files that are not what they say.
        page = error.number if isinstance(error, PageUnreadable) else None
        cause = error.__cause__ if isinstance(error, PageUnreadable) else error
        explained = _explained(cause or error, request)
        if page is not None:
            explained.facts["page"] = page
        raise explained from error


def _explained(error: BaseException, request: Request) -> DocumentUnreadable:
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError | RecursionError) or code == errno.ENOMEM:
        return too_complex(
            f"Reading the document takes more memory than the {request.options.memory_bytes} bytes that are allowed "
            "(SLUICE_INGEST_PARSE_MEMORY_BYTES)."
        )
    if code == errno.EFBIG:
        return too_complex("The document holds more text than this installation accepts.")
    # To the worker's log, without the message, which may quote the document.
    traceback.print_tb(error.__traceback__)
    sys.stderr.write(f"{type(error).__name__}\n")
    return damaged(f"The file cannot be read as {ACCEPTED[request.mime]}: it is damaged or cut short.")


def _written(document: ParsedDocument, request: Request, reports: IO[str]) -> dict[str, Any]:
    """Write the blocks; say what was written."""
    progress = _Progress(reports, document.pages)
    blocks = characters = 0
    has_text = False
    with Path(request.output).open("w", encoding="utf-8") as file:
        for block in document.blocks:
            progress.reach(block)
            file.write(block.to_json() + "\n")
            blocks += 1
            characters += len(block.text)
            has_text = has_text or any(character.isalnum() for character in block.text)
    if not has_text:
        raise no_text(_why_no_text(request))
    return {
        "title": document.title,
        "pages": document.pages,
        "encoding": document.encoding,
        "blocks": blocks,
        "characters": characters,
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    """The most memory that this process held; unlike `ru_maxrss`, not that of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * _BYTES_PER_KIBIBYTE


def _why_no_text(request: Request) -> str:
    if request.mime == PDF and not request.options.ocr:
        return (
            "No page has a text layer: this is probably a scan. Reading scans (OCR) is switched off here: set "
            "SLUICE_INGEST_OCR=true and install Tesseract, or upload a PDF with text."
        )
    if request.mime == PDF and shutil.which("tesseract") is None:
        return "No page has a text layer, and scans cannot be read: Tesseract is not installed on this worker."
    return "There is no text in the document."


if __name__ == "__main__":
    main()
