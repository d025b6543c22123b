"""A sentence-transformers model becomes one that EMB serves, or is refused with figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from services.cli.exit_codes import Exit
from services.emb.backends.openvino import NoFormWorks, OpenVinoBackend
from sluice.embedding_models.calibration_texts import shipped_texts, texts_of
from sluice.embedding_models.layout import PROBE_FILE, read_model
from sluice.errors import Invalid
from sluice.testing.service_process import running_service
from tests.integration.emb_served import vectors


def tiny_model(folder: Path, *, dense: bool = False, spread: float = 0.02) -> Path:
    """A transformer of random weights, of this standard deviation, that knows the words of the shipped texts."""
    torch.manual_seed(7)
    words = sorted({word for text in shipped_texts(("en",)).to_calibrate for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
        initializer_range=spread,
    )
    plain = folder.with_name(f"{folder.name}-plain")
    BertModel(config).save_pretrained(plain)
    fast.save_pretrained(plain)
    first = Transformer(str(plain), max_seq_length=64)
    modules = [first, Pooling(64, "mean")] + ([Dense(64, 32)] if dense else [])
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def sluice_models(models: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", "models", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "SLUICE_MODELS_FOLDER": str(models)},
    )


def test_a_model_is_converted_measured_and_distilled_and_both_are_served_beside_the_built_in_one(
    tmp_path: Path,
) -> None:
    models, source = tmp_path / "models", tiny_model(tmp_path / "tiny")

    added = sluice_models(models, "add", source, "--type", "embed", "--language", "en", "--allow-slower", "--json")

    assert added.returncode == 0, added.stderr
    entry = json.loads(added.stdout)
    assert (entry["dimension"], entry["context"], entry["backend"]) == (64, 64, "openvino")
    assert set(entry["measured"]) == {"cosine_mean", "cosine_p5", "recall_at_10"}
    assert "f32: cosine 1.0000" in added.stderr
    assert sluice_models(models, "activate", "tiny", "--alias", "tiny").returncode == 0
    distilled = sluice_models(models, "distill", "--from", models / entry["path"], "--name", "tiny-static")
    assert distilled.returncode == 0, distilled.stderr
    static = json.loads(sluice_models(models, "ls", "--json").stdout)[-1]
    elsewhere = tmp_path / "elsewhere"
    copied = sluice_models(
        elsewhere, "add", models / static["path"], "--type", "embed", "--backend", "static", "--json"
    )
    assert json.loads(copied.stdout)["dimension"] == static["dimension"] == 64
    refused = sluice_models(elsewhere, "add", source, "--type", "embed", "--backend", "static")
    assert (refused.returncode, "static.json" in refused.stderr) == (Exit.FAILED, True)
    assert sluice_models(models, "activate", "tiny-static", "--alias", "fast").returncode == 0
    with running_service("emb", variables={"SLUICE_MODELS_FOLDER": str(models)}) as service:
        cards = {card["id"]: card for card in httpx.get(f"{service.url}/v1/models").json()["data"]}
        body = {"model": "tiny", "input": "packages of Debian"}
        embedded = httpx.post(f"{service.url}/v1/embeddings", json=body).json()
        near, asked, far = vectors(service, "packages of Debian", "Debian packages", "the kernel", model="fast")
    assert {alias: card["dimension"] for alias, card in cards.items()} == {"default": 384, "tiny": 64, "fast": 64}
    assert near @ asked > far @ asked
    expected = SentenceTransformer(str(source), device="cpu").encode(["packages of Debian"], normalize_embeddings=True)
    assert float(expected[0] @ torch.tensor(embedded["data"][0]["embedding"]).numpy()) > 0.98


def test_a_model_that_loses_too_much_in_int8_is_refused_with_figures_and_leaves_nothing(tmp_path: Path) -> None:
    # Large weights: its attention looks at one word, and at another one after a small error.
    models, source = tmp_path / "models", tiny_model(tmp_path / "tiny", spread=0.5)

    refused = sluice_models(models, "add", source, "--type", "embed", "--language", "en")

    assert refused.returncode == Exit.FAILED
    assert "int8 is left out: a twentieth of its vectors have a cosine below 0.9" in refused.stderr
    assert "at least 0.99 is accepted" in refused.stderr
    assert "--allow-slower" in refused.stderr.splitlines()[-1]
    assert not refused.stdout
    assert json.loads(sluice_models(models, "ls", "--json").stdout) == []

    added = sluice_models(models, "add", source, "--type", "embed", "--language", "en", "--allow-slower", "--json")
    entry = json.loads(added.stdout)
    assert {form.name for form in read_model(models / entry["path"]).forms} >= {"int8_weights", "f32"}
    assert "int8" not in {form.name for form in read_model(models / entry["path"]).forms}


def test_a_form_that_does_not_run_on_this_processor_or_computes_wrongly_is_not_chosen(tmp_path: Path) -> None:
    models, source = tmp_path / "models", tiny_model(tmp_path / "tiny")
    added = sluice_models(models, "add", source, "--type", "embed", "--language", "en", "--allow-slower", "--json")
    folder = models / json.loads(added.stdout)["path"]
    networks = {form.network for form in read_model(folder).forms}
    right = OpenVinoBackend(folder, threads=1).form

    for network in networks - {"full.xml"}:
        weights = (folder / network).with_suffix(".bin")
        weights.write_bytes(bytes(weights.stat().st_size))
    assert OpenVinoBackend(folder, threads=1).form in {"f32", "bf16"}

    probe = json.loads((folder / PROBE_FILE).read_text())
    probe["texts"].reverse()
    (folder / PROBE_FILE).write_text(json.dumps(probe))
    with pytest.raises(NoFormWorks, match=f"None of .*{right}.* gives tiny's vectors here"):
        OpenVinoBackend(folder, threads=1)


def test_a_model_of_another_kind_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    refused = sluice_models(tmp_path / "models", "add", tiny_model(tmp_path / "tiny", dense=True), "--type", "embed")

    assert refused.returncode == Exit.FAILED
    assert "Dense" in refused.stderr
    assert "sentence_transformers" in refused.stderr


def test_too_few_texts_to_judge_by_are_refused(tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(f"A passage with number {n} about locks and sluices, and water." for n in range(30)))

    with pytest.raises(Invalid, match="30 passages"):
        texts_of(few)


def test_texts_to_judge_by_are_never_among_those_to_calibrate_on() -> None:
    texts = shipped_texts(("en",))

    assert not set(texts.to_calibrate) & set(texts.to_judge)
    assert len(texts.to_judge) > 400
