"""A sentence-transformers model as one network: tokens and mask in, vectors of unit length out. Needs PyTorch."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from sluice.errors import Invalid
from sluice.wire.embeddings import InputType

_POOLINGS: Final = ("mean", "cls")


@dataclass(frozen=True)
class Source:
    """A model as it came."""

    network: torch.nn.Module
    dimension: int
    max_tokens: int
    pad_token: int
    prompts: dict[InputType, str]


class _TextNetwork(torch.nn.Module):
    """Transformer, pooling and normalization in one."""

    def __init__(self, transformer: Any, *, pooling: str) -> None:
        super().__init__()
        self.transformer = transformer
        self._pooling = pooling
        self._wants_types = "token_type_ids" in inspect.signature(transformer.forward).parameters

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Vectors of unit length: (texts, dimension)."""
        types = {"token_type_ids": torch.zeros_like(input_ids)} if self._wants_types else {}
        read = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        if self._pooling == "cls":
            return torch.nn.functional.normalize(read[:, 0], dim=1)
        weight = attention_mask.unsqueeze(-1).to(read.dtype)
        # The mean's divisor is of no account: the vector is brought to unit length.
        return torch.nn.functional.normalize((read * weight).sum(dim=1), dim=1)


def read_source(folder: Path) -> Source:
    """The model in a folder of sentence-transformers, or `Invalid` if it is of a kind that is not converted."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.eval()
    first, *rest = list(model)
    if not isinstance(first, Transformer) or not rest or not isinstance(rest[0], Pooling):
        raise _not_convertible(folder, "it does not begin with a Transformer and a Pooling")
    if unknown := [type(each).__name__ for each in rest[1:] if not isinstance(each, Normalize)]:
        raise _not_convertible(folder, f"it has a module {unknown[0]}")
    pooling = str(rest[0].pooling_mode)
    if pooling not in _POOLINGS:
        raise _not_convertible(folder, f"its pooling is {pooling}; {' and '.join(_POOLINGS)} are known")
    if not (folder / "tokenizer.json").is_file():
        raise _not_convertible(folder, "tokenizer.json is missing")
    return Source(
        network=_TextNetwork(first.auto_model, pooling=pooling).eval(),
        dimension=int(model.get_embedding_dimension() or 0),
        max_tokens=int(model.max_seq_length or 512),
        pad_token=int(model.tokenizer.pad_token_id or 0),
        prompts={"query": model.prompts.get("query") or "", "document": model.prompts.get("document") or ""},
    )


def vectors_by_torch(source: Source, tokens: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """What PyTorch makes of these tokens: what a converted network is compared with."""
    with torch.inference_mode():
        vectors: NDArray[np.float32] = source.network(torch.from_numpy(tokens), torch.from_numpy(mask)).float().numpy()
    return vectors


def example_inputs() -> dict[str, torch.Tensor]:
    """Tokens and a mask that show the network's shapes to the converter."""
    tokens = torch.arange(5, 26).reshape(3, 7)
    mask = torch.ones_like(tokens)
    mask[0, 5:] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def _not_convertible(folder: Path, reason: str) -> Invalid:
    return Invalid(
        f"{folder} cannot be converted: {reason}. Run it by the backend sentence_transformers.", code="not_convertible"
    )
