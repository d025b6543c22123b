"""From files to a model that has shown that it works. Runs beside the models that serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

import numpy as np

from services.emb.admission import Throughput
from services.emb.backends.base import EmbeddingBackend
from services.emb.catalog import WantedModel
from sluice import telemetry
from sluice.errors import Invalid, SluiceError
from sluice.memory import require_memory
from sluice.model_store.manifest import BACKENDS

# What a loaded model takes, by the bytes of its files: the files hold each weight in several forms, one of which is
# loaded, and what it computes with comes on top.
_MEMORY_PER_BYTE: Final = 2
_MEMORY_BESIDES: Final = 64 * 1024**2
_PASSAGE: Final = "The water behind the gate rises until both sides are level. " * 3
_PASSAGES: Final = 8
# Of other lengths and with other numbers inside: a form that is scaled to its batch shows it here.
_STRANGERS: Final = ("7", "Да!", "1 2 3 4 5 6 7 8 9 0 " * 30, "WARNING: 0x7fffffff !!! >>> [[[ ]]] <<<")
_UNIT: Final = 1e-3
_SAME: Final = 0.999


class SelfTestFailed(SluiceError):
    """A model was loaded and does not do what a model does."""

    code = "self_test_failed"


Load = Callable[[WantedModel], EmbeddingBackend]


def loader(threads: int) -> Load:
    """Loads a model for as many threads: verified, with memory for it beside what serves, warm, tested."""

    def load(wanted: WantedModel) -> EmbeddingBackend:
        known = BACKENDS["embed"]
        if wanted.backend not in known:
            raise Invalid(f"{wanted.name} needs the backend {wanted.backend!r}; EMB has {', '.join(known)}.")
        require_memory(wanted.size * _MEMORY_PER_BYTE + _MEMORY_BESIDES, wanted.name)
        folder = wanted.verified()
        # Imported when it is needed, by the loading thread: torch takes seconds.
        module = import_module(f"services.emb.backends.{wanted.backend}")
        return cast("EmbeddingBackend", module.load(folder, threads))

    return load


def try_out(backend: EmbeddingBackend, throughput: Throughput) -> None:
    """Warm a model up and measure its speed; `SelfTestFailed` if its vectors are none."""
    texts = backend.tokenize([_PASSAGE] * _PASSAGES, "document")
    alone = backend.embed(texts[:1])
    began = time.perf_counter()
    together = backend.embed(texts)
    seconds = time.perf_counter() - began
    if together.shape != (_PASSAGES, backend.dimension) or not np.isfinite(together).all():
        raise SelfTestFailed(f"It answers {together.shape} for {_PASSAGES} texts, or numbers that are none.")
    if np.abs(np.linalg.norm(together, axis=1) - 1).max() > _UNIT:
        raise SelfTestFailed("Its vectors are not of unit length.")
    if float((together @ alone[0]).min()) < _SAME:
        raise SelfTestFailed("Texts that are the same have vectors that differ.")
    strangers = backend.tokenize([_PASSAGE, *_STRANGERS], "document")
    if float(backend.embed(strangers)[0] @ alone[0]) < _SAME:
        raise SelfTestFailed("The vector of a text depends on the texts beside it.")
    throughput.start_from(sum(len(text.ids) for text in texts), seconds)
    telemetry.logger().info("model.tried_out", tokens_per_second=round(throughput.tokens_per_second))
