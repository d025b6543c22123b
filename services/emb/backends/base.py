"""What the service needs of a model, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sluice.wire.embeddings import InputType

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as the model reads it: special tokens included, cut to the model's length."""

    ids: Sequence[int]
    truncated: bool


class EmbeddingBackend(Protocol):
    """A loaded model. `embed` is called by the thread that loaded it and by no other; the rest by any thread."""

    @property
    def version(self) -> str:
        """Short hash of weights and configuration."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    @property
    def max_tokens(self) -> int:
        """Longest text that is read whole, special tokens included."""

    @property
    def tokenizer_json(self) -> bytes:
        """The tokenizer in the format of the `tokenizers` library, with neither truncation nor padding."""

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        """The texts in the model's tokens, in their order."""

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector of unit length per text: (texts, dimension). It does not depend on the other texts."""
