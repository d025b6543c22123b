"""Which character set a text file is in: Unicode first, then Cyrillic by how Russian it reads, then a guess."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Final

from charset_normalizer import from_bytes

from sluice.documents.encodings import unicode_encoding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SAMPLE_BYTES: Final = 262_144
_GUESSED_BYTES: Final = 65_536
_FALLBACK: Final = "cp1252"
# The 8-bit character sets that files are found in; among all of Python's, short texts fit exotic ones best.
_CANDIDATES: Final = (
    *("cp1252", "cp1250", "iso8859_2", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
)
_BROKEN_SHARE: Final = 0.02

# Statistical detectors confuse these with one another and with Japanese; letter frequencies do not.
_CYRILLIC_CHARSETS: Final = ("cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic")
_FREQUENT: Final = frozenset("оеаинтсрвлкмдпуяыьгзбчй")
_RARE: Final = frozenset("щэфъё")
_RUSSIAN_WORD: Final = re.compile(r"\b[А-ЯЁ]?[а-яё]+\b|\b[А-ЯЁ]{2,}\b")  # «слово», «Слово», «СЛОВО», never «сЛОВО»
_CYRILLIC: Final = re.compile(r"[А-Яа-яЁё]")
_FEWEST_CYRILLIC: Final = 3
_READS_AS_RUSSIAN: Final = 0.6


def detect_encoding(sample: bytes) -> str:
    """Python's name of the encoding that the sample, the start of a file, is most likely in."""
    return unicode_encoding(sample) or _nearly_utf8(sample) or _cyrillic(sample) or _guessed(sample)


def _nearly_utf8(sample: bytes) -> str | None:
    """UTF-8 with a few broken characters, as files have that were cut or pasted together."""
    foreign = [character for character in sample.decode("utf-8", "replace") if character > "\x7f"]
    return "utf-8" if foreign.count("\ufffd") <= len(foreign) * _BROKEN_SHARE else None


def _cyrillic(sample: bytes) -> str | None:
    """The Cyrillic character set in which the sample reads as Russian, if there is one."""
    score, encoding = max((_russian_share(sample.decode(name, "replace")), name) for name in _CYRILLIC_CHARSETS)
    return encoding if score >= _READS_AS_RUSSIAN else None


def _russian_share(text: str) -> float:
    """How Russian the characters beyond ASCII are, 0 to 1: letters of well-formed words, above all frequent ones."""
    foreign = [character for character in text if character > "\x7f"]
    if len(foreign) < _FEWEST_CYRILLIC:
        return 0.0
    letters = "".join(word for word in _RUSSIAN_WORD.findall(text) if _CYRILLIC.match(word)).lower()
    frequent = sum(letter in _FREQUENT for letter in letters)
    rare = sum(letter in _RARE for letter in letters)
    return max(0.0, (frequent - 2 * rare) / len(foreign))


def _guessed(sample: bytes) -> str:
    best = from_bytes(sample[:_GUESSED_BYTES], cp_isolation=list(_CANDIDATES)).best()
    return best.encoding if best is not None else _FALLBACK


def file_encoding(path: Path) -> str:
    """The encoding of a text file, told from its start."""
    with path.open("rb") as file:
        return detect_encoding(file.read(_SAMPLE_BYTES))


def read_text(path: Path, encoding: str) -> str:
    """The whole text; bytes that the encoding does not know become U+FFFD."""
    return path.read_bytes().decode(encoding, "replace").removeprefix("\ufeff")


def text_lines(path: Path, encoding: str, *, longest: int) -> Iterator[str]:
    """The lines without their ends, a line of more than `longest` characters in pieces, in bounded memory."""
    with path.open("rb") as file, codecs.getreader(encoding)(file, "replace") as reader:
        while line := reader.readline(longest):
            yield line.rstrip("\r\n").removeprefix("\ufeff")
