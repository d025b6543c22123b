"""A static model: a table of token vectors, and arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from services.emb.backends.base import EmbeddingBackend, Vectors
from sluice.embedding_models.static_model import StaticModel
from sluice.embedding_models.tokenizing import TokenizedText
from sluice.wire.embeddings import InputType


def load(folder: Path, threads: int) -> EmbeddingBackend:  # noqa: ARG001 - one thread is more than it needs
    """The model in `folder`."""
    return StaticBackend(folder)


class StaticBackend:
    """A static model."""

    form = "static"

    def __init__(self, folder: Path) -> None:
        self._model = StaticModel(folder)
        facts = self._model.facts
        self.version, self.dimension, self.max_tokens = facts.vectors, facts.dimension, facts.max_tokens
        self.tokenizer_json = self._model.tokenizer.json

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        """The texts in the model's tokens."""
        return self._model.tokenizer.tokenize(texts, input_type)

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector of unit length per text: (texts, dimension)."""
        return self._model.embed(batch)
