"""Texts into tokens, once, by the library `tokenizers`: fast, and without holding Python's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from sluice.wire.embeddings import InputType


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as the model reads it: special tokens included, cut to the model's length."""

    ids: Sequence[int]
    truncated: bool


class ModelTokenizer:
    """The tokenizer of a model, with the prompt that it wants before each type of text."""

    def __init__(self, file: Path, max_tokens: int, prompts: Mapping[InputType, str]) -> None:
        self._prompts = prompts
        self._tokenizer = Tokenizer.from_file(str(file))
        # The file carries the truncation and padding of the model's training, which a caller that counts must not see.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.json = self._tokenizer.to_str().encode()
        self._tokenizer.enable_truncation(max_tokens)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[TokenizedText]:
        """The texts, behind the prompt of this type, in the model's tokens, in their order."""
        prompt = self._prompts.get(input_type) or ""
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [TokenizedText(ids=each.ids, truncated=bool(each.overflowing)) for each in encodings]
