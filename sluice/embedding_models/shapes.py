"""The few shapes that batches are padded to.

OpenVINO prepares for each new shape and keeps what it prepared: the more shapes, the more memory and the slower.
Neighbours lie so close that padding costs less than a tenth of a full batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_WIDTHS: Final = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256)
_ROWS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# Beyond, sizes go in steps.
_STEP: Final = 64


def width_for(tokens: int) -> int:
    """How wide a batch is whose longest text has so many tokens."""
    return _next(_WIDTHS, tokens)


def rows_for(texts: int) -> int:
    """How many rows a batch of so many texts has; those that are left over are empty."""
    return _next(_ROWS, texts)


def most_texts(budget: int, tokens: int) -> int:
    """How many texts of so many tokens fill a batch of at most `budget` padded tokens, with no row empty."""
    rows = budget // width_for(tokens)
    if rows > _ROWS[-1]:
        return rows // _STEP * _STEP
    return max((size for size in _ROWS if size <= rows), default=0)


def _next(sizes: Sequence[int], wanted: int) -> int:
    return next((size for size in sizes if size >= wanted), -(-wanted // _STEP) * _STEP)
