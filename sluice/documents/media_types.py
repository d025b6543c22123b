"""What a file is: told from its bytes, because names and headers lie."""

from __future__ import annotations

import re
import unicodedata
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Final

from sluice.documents.encodings import unicode_encoding
from sluice.errors import Invalid, UnsupportedType

if TYPE_CHECKING:
    from collections.abc import Mapping

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
EPUB: Final = "application/epub+zip"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"
CSV: Final = "text/csv"
JSON: Final = "application/json"
EML: Final = "message/rfc822"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
TIFF: Final = "image/tiff"

# The types that are accepted, each with what people call it.
ACCEPTED: Final[Mapping[str, str]] = {
    PDF: "pdf",
    DOCX: "docx",
    PPTX: "pptx",
    XLSX: "xlsx",
    HTML: "html",
    EPUB: "epub",
    MARKDOWN: "md",
    PLAIN: "txt",
    CSV: "csv",
    JSON: "json",
    EML: "eml",
    PNG: "png",
    JPEG: "jpeg",
    TIFF: "tiff",
}
# Pictures have text only for those who can read scans (`SLUICE_INGEST_OCR`).
NEEDS_OCR: Final = frozenset({PNG, JPEG, TIFF})

_SUFFIXES: Final[Mapping[str, str]] = {
    **{f".{name}": mime for mime, name in ACCEPTED.items()},
    ".htm": HTML,
    ".xhtml": HTML,
    ".markdown": MARKDOWN,
    ".text": PLAIN,
    ".tsv": CSV,
    ".jpg": JPEG,
    ".tif": TIFF,
}
_ZIP_BASED: Final = frozenset({DOCX, PPTX, XLSX, EPUB})
_TEXTUAL: Final = frozenset({HTML, MARKDOWN, PLAIN, CSV, JSON, EML})

_MAGIC: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
)
# What else people upload, so that the refusal can name it.
_REFUSED_TEXT: Final[tuple[tuple[bytes, str], ...]] = (
    (b"{\\rtf", "an RTF document"),
    (b"%!PS", "a PostScript document"),
)
_REFUSED_BINARY: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document of before 2007, or one locked with a password"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image, a sound or a video"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"", "of no known type"),
)
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_PDF_MAGIC: Final = b"%PDF-"
_PDF_MAGIC_WITHIN: Final = 1024  # readers forgive leading junk up to here, and some scanners produce it

_HEAD_BYTES: Final = 65_536
_DIRECTORY_BYTES: Final = 8 * 1024**2  # a hundred thousand entries; office documents have some dozens
_MIMETYPE_BYTES: Final = 64
_BINARY_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

_LONGEST_NAME_BYTES: Final = 255
_NAMELESS: Final = "document"


def sniff(file: BinaryIO, name: str) -> str:
    """The MIME type of an accepted file by its content, the kinds of text told apart by its name.

    Reads the head, and of a zip container its list of contents; leaves the position at 0. Raises `Invalid` for an
    empty file and `UnsupportedType` for a type that is not accepted, or not the one that the name claims.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if not head:
        raise Invalid("The file is empty.", code="empty_file")
    claimed = _SUFFIXES.get(PurePosixPath(name.lower()).suffix)
    found = _container(file, name, claimed) if head.startswith(_ZIP_MAGIC) else _by_magic(head, claimed)
    file.seek(0)
    if found is None:
        return _textual(head, name, claimed)
    if claimed is not None and claimed != found and not {claimed, found} <= NEEDS_OCR:
        raise _refused(name, f"the content is {ACCEPTED[found]}, which is not what the name says")
    return found


def _by_magic(head: bytes, claimed: str | None) -> str | None:
    """The type that the first bytes prove; None if they prove nothing."""
    if head.startswith(_PDF_MAGIC) or (claimed == PDF and _PDF_MAGIC in head[:_PDF_MAGIC_WITHIN]):
        return PDF
    return next((mime for magic, mime in _MAGIC if head.startswith(magic)), None)


def _textual(head: bytes, name: str, claimed: str | None) -> str:
    """The type of a text, which must be one."""
    is_binary = unicode_encoding(head) is None and _BINARY_CONTROLS.search(head)
    for magic, description in _REFUSED_BINARY if is_binary else _REFUSED_TEXT:
        if head.startswith(magic):
            raise _refused(name, f"it is {description}")
    if claimed in _TEXTUAL:
        return str(claimed)
    if claimed is not None:
        raise _refused(name, f"the content is not {ACCEPTED[claimed]}, although the name says so")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    return HTML if start.startswith((b"<!doctype html", b"<html")) else PLAIN


def _container(file: BinaryIO, name: str, claimed: str | None) -> str:
    """The type of a zip container, by its list of contents."""
    try:
        with zipfile.ZipFile(_Wary(file)) as archive:
            found = _by_contents(archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        # A document cut short is not of another type: reading it will say what is wrong with it.
        if claimed in _ZIP_BASED:
            return str(claimed)
        raise _refused(name, "it looks like a zip archive, but it is cut short or damaged") from error
    if found is None:
        raise _refused(name, "it looks like a zip archive of no known kind")
    return found


def _by_contents(archive: zipfile.ZipFile) -> str | None:
    names = set(archive.namelist())
    if "mimetype" in names:
        with archive.open("mimetype") as entry:
            return EPUB if entry.read(_MIMETYPE_BYTES).strip() == EPUB.encode() else None
    if "[Content_Types].xml" not in names:
        return None
    folders = {entry.split("/", 1)[0] for entry in names}
    found = [mime for folder, mime in (("word", DOCX), ("ppt", PPTX), ("xl", XLSX)) if folder in folders]
    return found[0] if len(found) == 1 else None


class _Wary:
    """A file that gives no more at once than an honest list of contents needs, whatever the archive claims."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _DIRECTORY_BYTES:
            raise zipfile.BadZipFile("The list of contents is too long.")
        return self._file.read(size if size >= 0 else _DIRECTORY_BYTES)


def _refused(name: str, reason: str) -> UnsupportedType:
    accepted = list(ACCEPTED.values())
    return UnsupportedType(
        f"{safe_name(name)} is not accepted: {reason}. Accepted are {', '.join(accepted)}.", accepted=accepted
    )


def safe_name(name: str) -> str:
    """The name without folders, control and direction characters, at most 255 bytes of UTF-8; never empty."""
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
    visible = "".join(
        character for character in base if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co"}
    )
    trimmed = " ".join(visible.split()).rstrip(". ")
    if not trimmed.strip("."):
        return _NAMELESS
    path = PurePosixPath(trimmed)
    return _shortened(path.stem, path.suffix)


def _shortened(stem: str, suffix: str) -> str:
    room = _LONGEST_NAME_BYTES - len(suffix.encode())
    if room <= 0:
        return _cut(stem + suffix, _LONGEST_NAME_BYTES)
    return _cut(stem, room) + suffix


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")
