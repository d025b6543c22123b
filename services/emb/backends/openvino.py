"""A converted model on OpenVINO, without torch: in the fastest form that this processor runs rightly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.emb.backends.base import EmbeddingBackend, Vectors
from sluice import telemetry
from sluice.embedding_models.layout import TOKENIZER_FILE, ConvertedModel, read_model, read_probe
from sluice.embedding_models.openvino_network import Network, computes_in_bf16
from sluice.embedding_models.tokenizing import ModelTokenizer, TokenizedText
from sluice.errors import SluiceError
from sluice.wire.embeddings import InputType

# A processor without the instructions for it may compute an int8 network wrongly (its sums overflow), not only slowly.
_LEAST_COSINE: Final = 0.98
_ROUNDS: Final = 3


class NoFormWorks(SluiceError):
    """No form of the model gives its vectors on this processor."""

    code = "no_form_works"


def load(folder: Path, threads: int) -> EmbeddingBackend:
    """The model in `folder`, in the form that is the fastest here."""
    return OpenVinoBackend(folder, threads)


class OpenVinoBackend:
    """A converted model."""

    def __init__(self, folder: Path, threads: int) -> None:
        model = read_model(folder)
        self.version = model.vectors
        self.dimension = model.dimension
        self.max_tokens = model.max_tokens
        self._tokenizer = ModelTokenizer(folder / TOKENIZER_FILE, model.max_tokens, model.prompts)
        self.tokenizer_json = self._tokenizer.json
        self.form, self._network = self._fastest(folder, model, threads)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        """The texts, behind the prompt that the model wants for this type, in the model's tokens."""
        return self._tokenizer.tokenize(texts, input_type)

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector of unit length per text: (texts, dimension)."""
        return self._network.embed(batch)

    def _fastest(self, folder: Path, model: ConvertedModel, threads: int) -> tuple[str, Network]:
        probe = read_probe(folder)
        batch = self._tokenizer.tokenize(probe.texts, "document")
        expected = np.frombuffer(probe.content(), dtype="<f4").reshape(-1, model.dimension)
        best: tuple[float, str, Network] | None = None
        for form in model.forms:
            if form.precision == "bf16" and not computes_in_bf16():
                continue
            try:
                network = Network(folder / form.network, form.precision, threads, model.pad_token)
                seconds, cosine = _tried(network, batch, expected)
            except RuntimeError as error:  # OpenVINO's only one
                telemetry.logger().warning("model.form_failed", form=form.name, error=str(error))
                continue
            telemetry.logger().info(
                "model.form_tried", form=form.name, milliseconds=round(seconds * 1000, 1), cosine=round(cosine, 4)
            )
            if cosine >= _LEAST_COSINE and (best is None or seconds < best[0]):
                best = seconds, form.name, network
        if best is None:
            raise NoFormWorks(
                f"None of {', '.join(form.name for form in model.forms)} gives {model.source}'s vectors here."
            )
        return best[1:]


def _tried(network: Network, batch: Sequence[TokenizedText], expected: Vectors) -> tuple[float, float]:
    """The least time of a pass, and the least cosine to what is expected."""
    vectors = network.embed(batch)  # the first pass prepares, and takes longer
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        network.embed(batch)
        seconds.append(time.perf_counter() - began)
    return min(seconds), float((vectors * expected).sum(axis=1).min())
