"""Any sentence-transformers model, on torch.

Tokenizing and batching are ours (`SentenceTransformer.encode` does both once more, by count of texts); the network,
pooling and normalization are the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from services.emb.backends.base import EmbeddingBackend, TokenizedText, Vectors
from services.emb.model_folder import model_version
from sluice.wire.embeddings import InputType


def load(folder: Path, threads: int) -> EmbeddingBackend:
    """The model in `folder`, ready to embed from the calling thread."""
    # OpenMP keeps the number per calling thread, so this belongs to the thread that will embed.
    torch.set_num_threads(threads)
    return SentenceTransformersBackend(folder)


class SentenceTransformersBackend:
    """A sentence-transformers model, float32."""

    def __init__(self, folder: Path) -> None:
        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._model.eval()
        self.version = model_version(folder)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 512)
        self._pad = int(self._model.tokenizer.pad_token_id or 0)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file carries the truncation and padding of the model's training, which a caller that counts must not see.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.tokenizer_json = self._tokenizer.to_str().encode()
        self._tokenizer.enable_truncation(self.max_tokens)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        """The texts, behind the prompt that the model wants for this type, in the model's tokens."""
        prompt = self._model.prompts.get(input_type) or ""
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [TokenizedText(ids=each.ids, truncated=bool(each.overflowing)) for each in encodings]

    def embed(self, batch: Sequence[TokenizedText]) -> Vectors:
        """One vector of unit length per text: (texts, dimension)."""
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
