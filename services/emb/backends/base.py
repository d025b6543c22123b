"""What the service needs of a model, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sluice.embedding_models.tokenizing import TokenizedText
from sluice.wire.embeddings import InputType

Vectors = NDArray[np.float32]


class EmbeddingBackend(Protocol):
    """A loaded model. `embed` is called by one thread at a time; the rest by any thread."""

    @property
    def version(self) -> str:
        """The same for models whose vectors may be compared."""

    @property
    def form(self) -> str:
        """In which form the model runs here, such as `int8` or `f32`."""

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
