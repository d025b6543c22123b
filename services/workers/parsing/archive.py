"""Zip containers (DOCX, PPTX, XLSX, EPUB) looked over before anything in them is unpacked."""

from __future__ import annotations

import stat
import zipfile
from typing import TYPE_CHECKING, Final

from services.workers.parsing.document import damaged, encrypted, too_complex

if TYPE_CHECKING:
    from pathlib import Path

    from services.workers.parsing.document import ParseOptions

_MOST_ENTRIES: Final = 10_000
_RATIO_MATTERS_ABOVE: Final = 10 * 1024**2  # small parts of repetitive XML honestly shrink a thousandfold
_ENCRYPTED_FLAG: Final = 0x1


def check_archive(path: Path, options: ParseOptions) -> None:
    """Raise `DocumentUnreadable` for an archive that is broken, locked, or would unpack to more than is allowed.

    Declared sizes can be trusted here, because `zipfile` never reads past them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise damaged("The file is cut short or damaged: its list of contents cannot be read.") from error
    if len(entries) > _MOST_ENTRIES:
        raise too_complex(f"The file holds {len(entries)} parts; {_MOST_ENTRIES} is the limit.")
    if any(entry.flag_bits & _ENCRYPTED_FLAG for entry in entries):
        raise encrypted("The file is locked with a password. Save a copy without one and upload that.")
    if any(stat.S_ISLNK(entry.external_attr >> 16) for entry in entries):
        raise damaged("The file holds symbolic links, which no document has.")
    _check_sizes(entries, path.stat().st_size, options)


def _check_sizes(entries: list[zipfile.ZipInfo], packed: int, options: ParseOptions) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > options.max_unpacked_bytes:
        raise too_complex(
            f"The file would unpack to {unpacked} bytes; {options.max_unpacked_bytes} is the limit here "
            "(SLUICE_INGEST_MAX_UNPACKED_BYTES)."
        )
    if unpacked > _RATIO_MATTERS_ABOVE and unpacked > packed * options.max_unpack_ratio:
        raise too_complex(
            f"The file would unpack to {unpacked // max(packed, 1)} times its size; {options.max_unpack_ratio} is the "
            "limit here (SLUICE_INGEST_MAX_UNPACK_RATIO)."
        )
