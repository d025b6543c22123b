"""An embedder without a model: texts that share words get vectors that are close."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace

from sluice.embedding_client import Embedded, EmbeddingModel
from sluice.errors import TemporarilyUnavailable
from sluice.wire.embeddings import InputType

_WORD = re.compile(r"\w+|[^\w\s]")
_UNKNOWN = "[UNK]"


class FakeEmbeddings:
    """An `EmbeddingClient` in memory. The same text has the same vector, today and in any process."""

    def __init__(self, *, alias: str = "default", dimension: int = 32, version: str = "fake-1") -> None:
        self.available = True
        self.embedded: list[str] = []
        """All texts that were embedded, in order."""
        self.calls = 0
        self._model = EmbeddingModel(alias=alias, version=version, dimension=dimension, max_tokens=256)

    def model(self) -> EmbeddingModel:
        """The model; another one only after `become`."""
        self._require_available()
        return self._model

    def become(self, version: str) -> None:
        """Serve another model under the same alias, whose vectors cannot be compared with those of before."""
        self._model = replace(self._model, version=version)

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Embedded:  # noqa: ARG002 - of the protocol
        """Sums of the words' hashes, at unit length."""
        self._require_available()
        if texts:
            self.calls += 1
            self.embedded += texts
        words = [_WORD.findall(text.lower()) for text in texts]
        limit = self._model.max_tokens
        return Embedded(
            vectors=[_unit_vector(each[:limit], self._model.dimension) for each in words],
            model_version=self._model.version,
            tokens=sum(min(limit, len(each)) for each in words),
            truncated=tuple(index for index, each in enumerate(words) if len(each) > limit),
        )

    def tokenizer(self) -> bytes:
        """A real tokenizer of the library `tokenizers` to which every word is one token."""
        self._require_available()
        return json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": {_UNKNOWN: 0}, "unk_token": _UNKNOWN},
            }
        ).encode()

    def _require_available(self) -> None:
        if not self.available:
            raise TemporarilyUnavailable("The fake embedder is switched off.", code="embedder_unavailable")


def _unit_vector(words: Sequence[str], dimension: int) -> list[float]:
    vector = [0.0] * dimension
    # A text without words still needs a direction.
    for word in words or [""]:
        digest = hashlib.shake_128(word.encode()).digest(dimension)
        for position, byte in enumerate(digest):
            vector[position] += byte - 127.5
    length = math.sqrt(sum(number * number for number in vector))
    return [number / length for number in vector]
