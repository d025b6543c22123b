"""How much memory a model takes, told from its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from services.llm.backends.llama_cpp.native import NativeModel, scores_bytes
from services.llm.backends.llama_cpp.steps import LARGEST_STEP
from sluice.settings import LlmServiceSettings

# llama.cpp keeps keys and values in half precision.
_BYTES_PER_NUMBER: Final = 2
_BYTES_PER_LOGIT: Final = 4


def needed_bytes(file: Path, settings: LlmServiceSettings) -> int:
    """Weights, keys and values of every sequence, and what a pass needs. `ModelUnusable` if the file is no model."""
    model = NativeModel(file, vocabulary_only=True)
    try:
        kind = model.fact("general.architecture")
        layers = _number(model, f"{kind}.block_count")
        heads = _number(model, f"{kind}.attention.head_count")
        shared_heads = _number(model, f"{kind}.attention.head_count_kv", heads)
        width = _number(model, f"{kind}.embedding_length") // max(1, heads)
        key = _number(model, f"{kind}.attention.key_length", width)
        value = _number(model, f"{kind}.attention.value_length", width)
        context = min(settings.context_tokens, _number(model, f"{kind}.context_length", settings.context_tokens))
        scores = scores_bytes(heads, context, settings.sequences)
        logits = (LARGEST_STEP + settings.sequences) * model.vocabulary_size * _BYTES_PER_LOGIT
    finally:
        model.close()
    per_token = layers * shared_heads * (key + value) * _BYTES_PER_NUMBER
    return file.stat().st_size + settings.sequences * context * per_token + max(logits, scores)


def _number(model: NativeModel, name: str, otherwise: int = 0) -> int:
    # Some models have a list with a number for each layer there; the first that fits is as good an estimate.
    digits = re.search(r"\d+", model.fact(name) or "")
    return int(digits.group()) if digits else otherwise
