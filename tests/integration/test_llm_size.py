"""What a model is said to take is what llama.cpp takes for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.llm.backends.llama_cpp.native import NativeContext, NativeModel, scores_bytes
from services.llm.backends.llama_cpp.rows import Row
from services.llm.backends.llama_cpp.size import needed_bytes
from sluice.settings import LlmServiceSettings
from tests.gguf_models import TINY, write_model

ROWS = 200


def test_keys_and_values_are_counted_as_llama_cpp_keeps_them(tmp_path: Path) -> None:
    file = write_model(tmp_path / "tiny.gguf", TINY)
    few, many = (needed_bytes(file, LlmServiceSettings(sequences=1, context_tokens=n)) for n in (1000, 2000))
    scores = scores_bytes(TINY.heads, 2000, 1) - scores_bytes(TINY.heads, 1000, 1)

    model = NativeModel(file)
    context = NativeContext(model, sequences=1, context_tokens=1000, threads=1)
    assert context.decode([Row(1, place, 0, wanted=False) for place in range(ROWS)]) == 0
    kept = context.saved_bytes(0) / ROWS
    context.close()
    model.close()

    assert (many - few - scores) / 1000 == pytest.approx(kept, rel=0.1)
    assert few > file.stat().st_size


def test_a_context_whose_scores_would_fill_the_memory_does_without_them() -> None:
    assert scores_bytes(14, 4096, 8) == 264 * 4096 * 14 * 4
    assert scores_bytes(32, 131_072, 8) == 0
