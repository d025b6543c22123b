"""A sentence-transformers model in all forms that EMB can run without PyTorch, each measured against the original.

Needs PyTorch and NNCF: the extra `models`. Minutes of work, done once, far from requests.
"""

from __future__ import annotations

import base64
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

# Both libraries below report their use over the network where this package is found; Sluice talks to nobody.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None keeps it out

import nncf  # noqa: E402 - after the line above, and so are all that follow
import openvino  # noqa: E402
from transformers.utils import logging as transformers_log  # noqa: E402

from sluice.embedding_models.calibration_texts import Texts  # noqa: E402
from sluice.embedding_models.judging import Vectors, quality, questions_and_passages, shortfall  # noqa: E402
from sluice.embedding_models.layout import (  # noqa: E402
    MODEL_FILE,
    PROBE_FILE,
    TOKENIZER_FILE,
    ConvertedModel,
    Form,
    FormName,
    Probe,
    write,
)
from sluice.embedding_models.openvino_network import Network, padded  # noqa: E402
from sluice.embedding_models.recipe import vectors_of  # noqa: E402
from sluice.embedding_models.source import Source, example_inputs, read_source, vectors_by_torch  # noqa: E402
from sluice.embedding_models.tokenizing import ModelTokenizer, TokenizedText  # noqa: E402
from sluice.errors import Invalid  # noqa: E402
from sluice.threads import usable_threads  # noqa: E402

_BATCH: Final = 16
_PROBE_TEXTS: Final = 24
_SAME: Final = 0.9999

Report = Callable[[str], None]


@dataclass(frozen=True)
class _Plan:
    name: FormName
    network: str
    precision: str


_PLANS: Final = (
    _Plan("int8", "int8.xml", "f32"),
    _Plan("int8_weights", "int8_weights.xml", "f32"),
    _Plan("bf16", "full.xml", "bf16"),
    _Plan("f32", "full.xml", "f32"),
)


def convert(
    folder: Path,
    target: Path,
    *,
    texts: Texts,
    languages: Sequence[str],
    report: Report,
    required: FormName = "int8",
) -> ConvertedModel:
    """Write the sentence-transformers model in `folder` to `target` in every form that is good enough.

    `target` is made empty first. `Invalid` with figures if the `required` form is not good enough.
    """
    with _only_our_words():
        report("Reading the model")
        source = read_source(folder)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shutil.copyfile(folder / "tokenizer.json", target / TOKENIZER_FILE)
        tokenizer = ModelTokenizer(target / TOKENIZER_FILE, source.max_tokens, source.prompts)
        _write_networks(source, target, list(_batches(tokenizer, texts.to_calibrate, source.pad_token)), report)
        judged = _judge(source, target, tokenizer, texts, report)
    if required not in judged.forms:
        raise Invalid(
            f"The form {required} of {folder.name} is not good enough on this processor: {judged.refused[required]}. "
            "Calibrate on texts like those that it will embed (--texts), or go without that form (--allow-slower).",
            code="quality_gate",
        )
    for network in {plan.network for plan in _PLANS} - {form.network for form in judged.forms.values()}:
        (target / network).unlink()
        (target / network).with_suffix(".bin").unlink()
    model = ConvertedModel(
        source=folder.name,
        vectors=vectors_of(folder, texts),
        dimension=source.dimension,
        max_tokens=source.max_tokens,
        pad_token=source.pad_token,
        prompts=source.prompts,
        languages=tuple(languages),
        forms=tuple(judged.forms.values()),
    )
    write(target / PROBE_FILE, judged.probe)
    write(target / MODEL_FILE, model)
    return model


@contextmanager
def _only_our_words() -> Iterator[None]:
    """Without the progress bars and warnings of three libraries, which would hide what is reported here."""
    nncf.set_log_level(logging.ERROR)
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        transformers_log.disable_progress_bar()
        transformers_log.set_verbosity_error()
        yield


def _write_networks(source: Source, target: Path, calibration: list[dict[str, Any]], report: Report) -> None:
    report("Translating the network")
    full = openvino.convert_model(source.network, example_input=example_inputs())
    full.reshape({"input_ids": [-1, -1], "attention_mask": [-1, -1]})
    openvino.save_model(full, target / "full.xml", compress_to_fp16=True)
    report(f"Quantizing by {len(calibration) * _BATCH} texts")
    quantized = nncf.quantize(
        full,
        nncf.Dataset(calibration),
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
    )
    openvino.save_model(quantized, target / "int8.xml", compress_to_fp16=False)
    report("Compressing the weights")
    weights = nncf.compress_weights(full, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(weights, target / "int8_weights.xml", compress_to_fp16=True)


@dataclass(frozen=True)
class _Judged:
    forms: dict[FormName, Form]
    refused: dict[FormName, str]
    probe: Probe


def _judge(source: Source, target: Path, tokenizer: ModelTokenizer, texts: Texts, report: Report) -> _Judged:
    questions, passages = questions_and_passages(texts.to_judge)
    asked, stored = tokenizer.tokenize(questions, "query"), tokenizer.tokenize(passages, "document")

    def answers(plan: _Plan) -> tuple[Vectors, Vectors]:
        network = Network(target / plan.network, plan.precision, usable_threads(), source.pad_token)
        return _embedded(network, asked), _embedded(network, stored)

    original = answers(_PLANS[-1])
    _require_same(source, stored[:_BATCH], original[1][:_BATCH])
    standard = quality(original, original)
    forms: dict[FormName, Form] = {}
    refused: dict[FormName, str] = {}
    for plan in _PLANS:
        found = quality(answers(plan), original)
        reason = shortfall(found, standard)
        report(
            f"{plan.name}: cosine {found.cosine_mean:.4f} (p5 {found.cosine_p5:.4f}), recall@10 of {len(questions)} "
            f"questions {found.recall_at_10:.3f}, original {standard.recall_at_10:.3f}"
        )
        if reason:
            report(f"{plan.name} is left out: {reason}")
            refused[plan.name] = reason
        else:
            form = {"name": plan.name, "network": plan.network, "precision": plan.precision, "quality": found}
            forms[plan.name] = Form.model_validate(form)
    vectors = base64.b64encode(original[1][:_PROBE_TEXTS].astype("<f4").tobytes()).decode("ascii")
    return _Judged(forms, refused, Probe(texts=tuple(passages[:_PROBE_TEXTS]), vectors=vectors))


def _require_same(source: Source, texts: Sequence[TokenizedText], translated: Vectors) -> None:
    tokens, mask = padded([text.ids for text in texts], source.pad_token)
    least = float((vectors_by_torch(source, tokens, mask) * translated).sum(axis=1).min())
    if least < _SAME:
        raise Invalid(
            f"The translated network is another: cosine {least:.4f} to PyTorch's vectors. Do not use it.",
            code="quality_gate",
        )


def _embedded(network: Network, texts: Sequence[TokenizedText]) -> Vectors:
    by_length = sorted(range(len(texts)), key=lambda position: len(texts[position].ids))
    pieces = [by_length[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
    vectors = np.vstack([network.embed([texts[position] for position in piece]) for piece in pieces])
    ordered = np.empty_like(vectors)
    ordered[by_length] = vectors
    return ordered


def _batches(tokenizer: ModelTokenizer, texts: Sequence[str], pad: int) -> Iterator[dict[str, Any]]:
    by_length = sorted(tokenizer.tokenize(texts, "document"), key=lambda text: len(text.ids))
    for start in range(0, len(by_length), _BATCH):
        tokens, mask = padded([text.ids for text in by_length[start : start + _BATCH]], pad)
        yield {"input_ids": tokens, "attention_mask": mask}
