"""Any sentence-transformers model, on torch: the reference, and what runs models that cannot be converted.

Tokenizing and batching are ours (`SentenceTransformer.encode` does both once more, by count of texts); the network,
pooling and normalization are the library's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

# Read by the libraries when they are imported: never look for a model on the network, never fork a thread pool
# beside ours.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from sentence_transformers import SentenceTransformer

from services.emb.backends.base import EmbeddingBackend, Vectors
from sluice.embedding_models.tokenizing import ModelTokenizer, TokenizedText
from sluice.model_store.files import digest
from sluice.wire.embeddings import InputType

_VERSION_DIGITS = 12


def load(folder: Path, threads: int) -> EmbeddingBackend:
    """The model in `folder`."""
    return SentenceTransformersBackend(folder, threads)


class SentenceTransformersBackend:
    """A sentence-transformers model, float32."""

    form = "torch"

    def __init__(self, folder: Path, threads: int) -> None:
        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._model.eval()
        self._threads = threads
        self._prepared = threading.local()
        self.version = digest(folder)[:_VERSION_DIGITS]
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 512)
        self._pad = int(self._model.tokenizer.pad_token_id or 0)
        prompts: dict[InputType, str] = {
            "query": self._model.prompts.get("query") or "",
            "document": self._model.prompts.get("document") or "",
        }
        self._tokenizer = ModelTokenizer(folder / "tokenizer.json", self.max_tokens, prompts)
        self.tokenizer_json = self._tokenizer.json

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        """The texts, behind the prompt that the model wants for this type, in the model's tokens."""
        return self._tokenizer.tokenize(texts, input_type)

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector of unit length per text: (texts, dimension)."""
        self._prepare_thread()
        longest = max(len(text.ids) for text in batch)
        ids = torch.full((len(batch), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, text in enumerate(batch):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            mask[row, : len(text.ids)] = 1
        with torch.inference_mode():
            output = self._model.forward({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
            vectors: Vectors = torch.nn.functional.normalize(output, dim=1).float().numpy()
        return vectors

    def _prepare_thread(self) -> None:
        # OpenMP keeps the number per calling thread.
        if not hasattr(self._prepared, "done"):
            torch.set_num_threads(self._threads)
            self._prepared.done = True
