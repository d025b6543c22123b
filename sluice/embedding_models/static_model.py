"""A model without a network: each token has a vector, and a text's vector is the mean of its tokens'.

Hundreds of times as fast as a transformer, and worse: for bulk search over very much text. Distilled from a converted
model, as model2vec does (https://github.com/MinishLab/model2vec): each token goes through the transformer alone, the
vectors are projected on their principal components, and frequent tokens weigh less. Then what all texts have in common
is taken out, as Arora et al. do (A Simple but Tough-to-Beat Baseline for Sentence Embeddings, 2017).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sluice.embedding_models.calibration_texts import Texts
from sluice.embedding_models.judging import questions_and_passages, recall
from sluice.embedding_models.layout import STATIC_FILE, TOKENIZER_FILE, StaticFacts, read_model, read_static, write
from sluice.embedding_models.openvino_network import Network
from sluice.embedding_models.tokenizing import ModelTokenizer, TokenizedText

_VECTORS_FILE: Final = "vectors.npy"
_RECIPE: Final = "static 2"
_DIGITS: Final = 12
_DIMENSION: Final = 384
_MAX_TOKENS: Final = 512
_BATCH: Final = 256
# Of smooth inverse frequency, with the frequency by rank in the vocabulary, after Zipf.
_SMOOTH: Final = 3e-4
# Directions that texts have in common whatever they are about.
_COMMON: Final = 10

Vectors = NDArray[np.float32]


class StaticModel:
    """A static model in memory."""

    def __init__(self, folder: Path) -> None:
        self.facts = read_static(folder)
        self.tokenizer = ModelTokenizer(folder / TOKENIZER_FILE, self.facts.max_tokens, {})
        self._vectors = np.load(folder / _VECTORS_FILE, allow_pickle=False).astype(np.float32)

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector of unit length per text: (texts, dimension)."""
        return mean_vectors(self._vectors, batch)


def mean_vectors(table: Vectors, batch: Sequence[TokenizedText]) -> Vectors:
    """The mean of each text's token vectors, at unit length; of a text without a known token, a fixed one."""
    means = np.stack([table[list(text.ids)].sum(axis=0) for text in batch])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    nothing = np.zeros_like(means[0])
    nothing[0] = 1
    return np.where(lengths > 0, means / np.where(lengths > 0, lengths, 1), nothing).astype(np.float32)


def distill(folder: Path, target: Path, texts: Texts, threads: int) -> StaticFacts:
    """Write a static model of the converted model in `folder` to `target`, made empty first."""
    model = read_model(folder)
    form = model.forms[-1]
    network = Network(folder / form.network, form.precision, threads, model.pad_token)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    before, after = _around(tokenizer)
    vocabulary = tokenizer.get_vocab_size()
    alone = [TokenizedText([*before, token, *after], truncated=False) for token in range(vocabulary)]
    raw = np.vstack([network.embed(alone[start : start + _BATCH]) for start in range(0, vocabulary, _BATCH)])
    words = [tokenizer.id_to_token(token) or "" for token in range(vocabulary)]
    reader = ModelTokenizer(folder / TOKENIZER_FILE, model.max_tokens, model.prompts)
    table = weighted(principal(raw, min(_DIMENSION, model.dimension)), frequency_ranks(words), special)
    table = without_common(table, mean_vectors(table, reader.tokenize(texts.to_calibrate, "document")), _COMMON)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copyfile(folder / TOKENIZER_FILE, target / TOKENIZER_FILE)
    np.save(target / _VECTORS_FILE, table.astype(np.float16))
    questions, passages = (reader.tokenize(some, "document") for some in questions_and_passages(texts.to_judge))
    facts = StaticFacts(
        source=model.source,
        vectors=hashlib.sha256(f"{model.vectors}\n{_RECIPE}".encode()).hexdigest()[:_DIGITS],
        dimension=table.shape[1],
        max_tokens=_MAX_TOKENS,
        languages=model.languages,
        recall_at_10=round(recall(mean_vectors(table, questions), mean_vectors(table, passages)), 4),
        recall_at_10_of_source=form.quality.recall_at_10,
    )
    write(target / STATIC_FILE, facts)
    return facts


def principal(vectors: Vectors, dimensions: int) -> Vectors:
    """The vectors on the axes along which they differ most: (vectors, dimensions)."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    projected: Vectors = (centred @ axes[:, ::-1][:, :dimensions]).astype(np.float32)
    return projected


def weighted(vectors: Vectors, ranks: NDArray[np.int64], special: set[int]) -> Vectors:
    """The vectors, shorter the more frequent their token (of the lower rank) is; of special tokens, nothing."""
    frequency = (1 / ranks) / (1 / np.unique(ranks)).sum()
    result: Vectors = (vectors * (_SMOOTH / (_SMOOTH + frequency))[:, None]).astype(np.float32)
    result[sorted(special)] = 0
    return result


def without_common(vectors: Vectors, texts: Vectors, directions: int) -> Vectors:
    """The vectors without their part along the directions in which the vectors of texts are longest."""
    *_, axes = np.linalg.svd(texts, full_matrices=False)
    common = axes[: min(directions, texts.shape[1] // 2)]
    result: Vectors = (vectors - (vectors @ common.T) @ common).astype(np.float32)
    return result


def frequency_ranks(tokens: Sequence[str]) -> NDArray[np.int64]:
    """How frequent each token is, 1 for the most frequent, by the vocabulary's order: the one that it was counted in.

    Characters and reserved places stand before the words in that order and say nothing of frequency; they count as the
    most frequent.
    """
    words = np.array([len(token.removeprefix("##")) > 1 and not token.startswith("[") for token in tokens])
    ranks: NDArray[np.int64] = np.maximum(np.cumsum(words), 1)
    ranks[~words] = 1
    return ranks


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a text is put between."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    one = tokenizer.encode("a")
    first = one.special_tokens_mask.index(0)
    return one.ids[:first], one.ids[first + 1 :]
