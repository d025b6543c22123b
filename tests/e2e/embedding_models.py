"""Embedding models that are soon loaded, and that every processor runs."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

from sluice.embedding_models.layout import BUILT_IN, MODEL_FILE, PROBE_FILE, TOKENIZER_FILE, Probe, read_probe, write
from sluice.model_store.manifest import ModelEntry
from sluice.model_store.store import Description, ModelStore


def add(store: ModelStore, folder: Path, *, name: str, vectors: str) -> ModelEntry:
    """The built-in model, in the form that every processor runs rightly, said to make other vectors; soon loaded."""
    copy = folder / f"{name}-{vectors}"
    copy.mkdir()
    described = json.loads((BUILT_IN / MODEL_FILE).read_text())
    (form,) = [each for each in described["forms"] if each["name"] == "f32"]
    network = Path(form["network"])
    for file in (TOKENIZER_FILE, network, network.with_suffix(".bin")):
        shutil.copyfile(BUILT_IN / file, copy / file)
    probe, texts = read_probe(BUILT_IN), 4
    vectors_of_texts = probe.content()[: texts * described["dimension"] * 4]
    shorter = Probe(texts=probe.texts[:texts], vectors=base64.b64encode(vectors_of_texts).decode())
    write(copy / PROBE_FILE, shorter)
    (copy / MODEL_FILE).write_text(json.dumps({**described, "forms": [form], "vectors": vectors}))
    return store.add(copy, Description(name=name, type="embed", backend="openvino", dimension=384, languages=("en",)))
