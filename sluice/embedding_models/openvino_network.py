"""A network in OpenVINO's format, compiled for this processor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from sluice.embedding_models.tokenizing import TokenizedText

Vectors = NDArray[np.float32]
Tokens = NDArray[np.int64]

# Lengths are padded to the next of these steps, so that the network sees few shapes: OpenVINO keeps what it prepared
# for a shape, and memory would grow with every new one.
_STEPS: Final = ((64, 8), (256, 16), (1024, 64))
_COARSEST: Final = 256


class Network:
    """Batches of tokens in, vectors of unit length out. Belongs to one thread."""

    def __init__(self, file: Path, precision: str, threads: int, pad_token: int) -> None:
        """Compiled to run on `threads` threads, in `precision` ("f32" or "bf16") where it is not quantized."""
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Other processes use these cores as well; who is tied to one waits for it.
            "ENABLE_CPU_PINNING": False,
        }
        self._request = _core().compile_model(str(file), "CPU", options).create_infer_request()
        self._pad = pad_token

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector per text: (texts, dimension)."""
        tokens, mask = padded([text.ids for text in batch], self._pad)
        answer = self._request.infer([tokens, mask], share_inputs=True, share_outputs=True)
        return np.array(answer[0], dtype=np.float32)


def padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[Tokens, Tokens]:
    """The texts as a matrix whose width is a bucket's, and the mask of what is text in it."""
    width = bucket(max(len(ids) for ids in texts))
    tokens = np.full((len(texts), width), pad, dtype=np.int64)
    mask = np.zeros((len(texts), width), dtype=np.int64)
    for row, ids in enumerate(texts):
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    return tokens, mask


def bucket(length: int) -> int:
    """The width to which a text of this length is padded."""
    step = next((step for limit, step in _STEPS if length <= limit), _COARSEST)
    return -(-length // step) * step


def computes_in_bf16() -> bool:
    """Whether this processor multiplies bfloat16 by itself."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> openvino.Core:
    return openvino.Core()
