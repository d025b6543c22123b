"""Which Unicode encoding a stretch of bytes is in, if it is in one."""

from __future__ import annotations

import codecs
import re
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
# Letters, digits, blanks and marks of the scripts that UTF-16 without a byte order mark is seen in.
_EXPECTED: Final = re.compile(r"[\t\n\r -~\u00a0-\u024f\u0370-\u052f\u2010-\u2026\u2116]")
_EXPECTED_SHARE: Final = 0.95
_LONGEST_SEQUENCE: Final = 4  # bytes of a UTF-8 character, which the end of the stretch may cut


def unicode_encoding(head: bytes) -> str | None:
    """Python's name of the encoding, or None for 8-bit and binary content. `head` may end inside a character."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if _is_utf8(head):
        return "utf-8"
    return next((encoding for encoding in ("utf-16-le", "utf-16-be") if _is_utf16(head, encoding)), None)


def _is_utf8(head: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(head)
    except UnicodeDecodeError:
        return False
    return not _CONTROLS.search(text) and len(decoder.getstate()[0]) < _LONGEST_SEQUENCE


def _is_utf16(head: bytes, encoding: str) -> bool:
    text = head[: len(head) & ~1].decode(encoding, errors="replace")
    return bool(text) and not _CONTROLS.search(text) and len(_EXPECTED.findall(text)) >= len(text) * _EXPECTED_SHARE
