"""llama.cpp through llama-cpp-python's C functions: a model, and a context to compute with.

Names and meanings are those of `llama.h`. Whoever opens something here closes it; nothing is left to garbage
collection, which frees in the wrong order at exit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np

from services.llm.backends.base import Sampling
from services.llm.backends.llama_cpp.errors import ModelUnusable
from services.llm.backends.llama_cpp.rows import Row
from services.llm.backends.llama_cpp.runs import LONGEST_RUN, parts_of
from services.llm.backends.llama_cpp.sampling import Sampler, opened_grammar
from services.llm.backends.llama_cpp.steps import LARGEST_STEP
from sluice import telemetry

_LEVEL_ERROR: Final = 3
_TEST_TOKENS: Final = 8
_MOST_SCORES_BYTES: Final = 512 * 1024**2
_BYTES_PER_SCORE: Final = 4
_FACT_BYTES: Final = 256
_OF_CONTROL: Final = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
# llama.cpp looks for these in a text before it splits what is between them.
_FOUND_WHOLE: Final = _OF_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # of ctypes
def _log(level: int, text: bytes, _: Any) -> None:
    if level == _LEVEL_ERROR:
        telemetry.logger().warning("llama_cpp.error", detail=text.decode(errors="replace").strip())


def _open_library() -> None:
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


_open_library()


class NativeModel:
    """Weights, vocabulary and chat template of a GGUF file. The vocabulary may be used by any thread."""

    def __init__(self, file: Path, *, vocabulary_only: bool = False) -> None:
        """Map the file into memory; `ModelUnusable` if it is none, or cut short."""
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.vocab_only = vocabulary_only
        if not file.is_file():
            raise ModelUnusable(f"There is no file {file}. Put the model there, or correct SLUICE_LLM_MODEL_PATH.")
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise ModelUnusable(
                f"llama.cpp cannot load {file.name}: it is no GGUF file, is cut short, or has a newer format. "
                "Compare its SHA-256 with the publisher's and copy it again."
            )
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        if not vocabulary:
            raise ModelUnusable(f"{file.name} has no vocabulary.")
        self._vocabulary = vocabulary
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.trained_context: int = llama_cpp.llama_model_n_ctx_train(self._model)
        self._pieces: dict[int, bytes] = {}
        self._splits_words = llama_cpp.llama_vocab_type(vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_BPE

    def close(self) -> None:
        """Free it; contexts first."""
        if self._model:
            llama_cpp.llama_model_free(self._model)
            self._model = None

    @property
    def handle(self) -> Any:
        """The C pointer, for contexts."""
        return self._model

    @property
    def vocabulary(self) -> Any:
        """The C pointer of the vocabulary, for samplers."""
        return self._vocabulary

    def tokenize(self, text: str, *, special: bool, begin: bool = True) -> list[int]:
        """The tokens of a text. With `special`, names of control tokens in it stand for them.

        With `begin`, what the model wants before every text stands before it.
        """
        may_be_cut = self._splits_words and len(text) > LONGEST_RUN
        first, *others = parts_of(text, self._found_whole) if may_be_cut else [text]
        tokens = self._tokenize(first, special=special, begin=begin)
        for part in others:
            tokens += self._tokenize(part, special=special, begin=False)
        return tokens

    def _tokenize(self, text: str, *, special: bool, begin: bool) -> list[int]:
        # Lone surrogates have no bytes; a question mark is what they become everywhere else.
        content = text.encode(errors="replace")
        room = len(content) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, content, len(content), tokens, room, begin, special)
        if count < 0:
            tokens = (llama_cpp.llama_token * -count)()
            count = llama_cpp.llama_tokenize(self._vocabulary, content, len(content), tokens, -count, begin, special)
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; control tokens stand for none."""
        known = self._pieces.get(token)
        if known is None:
            room = 64
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, room, 0, False)
            if count < 0:
                buffer = ctypes.create_string_buffer(-count)
                count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, -count, 0, False)
            known = self._pieces[token] = buffer.raw[:count]
        return known

    def name_of(self, token: int) -> str:
        """A control token as chat templates write it."""
        if token < 0:
            return ""
        return bytes(llama_cpp.llama_vocab_get_text(self._vocabulary, token) or b"").decode(errors="replace")

    def control_names(self) -> list[str]:
        """The names of all tokens that stand for themselves only where `tokenize` is told `special`."""
        return self._names_of(_OF_CONTROL)

    @cached_property
    def _found_whole(self) -> list[str]:
        return self._names_of(_FOUND_WHOLE)

    def _names_of(self, attributes: int) -> list[str]:
        tokens = range(self.vocabulary_size)
        return [self.name_of(t) for t in tokens if llama_cpp.llama_vocab_get_attr(self._vocabulary, t) & attributes]

    def longest_piece(self) -> int:
        """Characters that a token stands for at most; rather more than that, for it is how the file writes them."""
        tokens = range(self.vocabulary_size)
        return max(len(llama_cpp.llama_vocab_get_text(self._vocabulary, token) or b"") for token in tokens)

    def ends_answer(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))

    def require_grammar(self, grammar: str) -> None:
        """`GrammarRefused` if llama.cpp does not take this grammar, which has passed `grammar.checked`."""
        llama_cpp.llama_sampler_free(opened_grammar(self._vocabulary, grammar))

    @property
    def chat_template(self) -> str | None:
        """The Jinja template with which the model was trained, if the file has it."""
        template = llama_cpp.llama_model_chat_template(self._model, None)
        return template.decode() if template else None

    def fact(self, name: str) -> str | None:
        """What the file says of itself under this name, if it does."""
        buffer = ctypes.create_string_buffer(_FACT_BYTES)
        length = llama_cpp.llama_model_meta_val_str(self._model, name.encode(), buffer, _FACT_BYTES)
        return buffer.value.decode(errors="replace") if length >= 0 else None

    @property
    def begin_token(self) -> str:
        """What stands before every text, for templates that write it."""
        return self.name_of(llama_cpp.llama_vocab_bos(self._vocabulary))

    @property
    def end_token(self) -> str:
        """What ends every text, for templates that write it."""
        return self.name_of(llama_cpp.llama_vocab_eos(self._vocabulary))


class NativeContext:
    """Memory for so many sequences, and one batch for its whole life. Belongs to the thread that made it."""

    def __init__(self, model: NativeModel, *, sequences: int, context_tokens: int, threads: int) -> None:
        """`context_tokens` for each sequence; `ModelUnusable` if the memory cannot be had."""
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = sequences * context_tokens
        parameters.n_seq_max = sequences
        parameters.n_batch = parameters.n_ubatch = LARGEST_STEP + sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.no_perf = True
        # Models with a sliding window forget the beginnings that prefix reuse needs, unless told otherwise.
        parameters.swa_full = True
        # In one memory for all, every token is held against those of the others too (docs/decisions/0030).
        parameters.kv_unified = False
        # docs/decisions/0030: fewer than 64 rows of a prompt take half as long again with it.
        if scores_bytes(llama_cpp.llama_model_n_head(model.handle), context_tokens, sequences):
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._model = model
        self._context = llama_cpp.llama_init_from_model(model.handle, parameters)
        if not self._context:
            raise ModelUnusable(
                f"No memory for {sequences} sequences of {context_tokens} tokens. Lower SLUICE_LLM_SEQUENCES or "
                "SLUICE_LLM_CONTEXT_TOKENS."
            )
        self.sequences = sequences
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(LARGEST_STEP + sequences, 0, 1)

    def close(self) -> None:
        """Free the batch and the context; samplers first, the model after."""
        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            self._context = None

    def decode(self, rows: Sequence[Row]) -> int:
        """Compute a batch. 0: done; 1: no room in the memory, nothing changed; anything else: failed."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for index, row in enumerate(rows):
            batch.token[index] = row.token
            batch.pos[index] = row.position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row.sequence
            batch.logits[index] = row.wanted
        return int(llama_cpp.llama_decode(self._context, batch))

    def self_test(self) -> None:
        """Write the same few tokens twice; `ModelUnusable` if they differ, or if a logit is no number.

        It also touches every weight, so that no request waits for the disk.
        """
        if self._written() != self._written():
            raise ModelUnusable("The model does not write the same twice. Its file, or this machine, is broken.")

    def _written(self) -> list[int]:
        tokens = [1 + number % (self._model.vocabulary_size - 1) for number in range(_TEST_TOKENS)]
        rows = [Row(token, place, 0, place == _TEST_TOKENS - 1) for place, token in enumerate(tokens)]
        found: list[int] = []
        while len(found) < _TEST_TOKENS:
            if self.decode(rows):
                raise ModelUnusable("The model does not compute.")
            size = self._model.vocabulary_size
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, len(rows) - 1), shape=(size,))
            if not np.isfinite(logits).all():
                raise ModelUnusable("The model computes what is no number. Its file is broken, or not for llama.cpp.")
            found.append(int(logits.argmax()))
            rows = [Row(found[-1], _TEST_TOKENS + len(found) - 1, 0, wanted=True)]
        self.forget(0, 0)
        return found

    def sampler(self, sampling: Sampling, grammar: str | None) -> Sampler:
        """Chooses the tokens of one answer; close it before the context."""
        return Sampler(self._model.vocabulary, self._model.vocabulary_size, sampling, grammar)

    def sample(self, sampler: Sampler, row: int) -> int:
        """The next token after this row of the last batch, which wanted it."""
        return sampler.sample(self._context, row)

    def forget(self, sequence: int, kept: int) -> bool:
        """Keep the first tokens of a sequence only; False if this model's memory cannot do that."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, sequence, kept, -1))

    def saved_bytes(self, sequence: int) -> int:
        """Size of what `save` would return."""
        return int(llama_cpp.llama_state_seq_get_size(self._context, sequence))

    def save(self, sequence: int) -> bytearray:
        """What was computed for a sequence. It may be hundreds of megabytes, so it is in memory once."""
        state = bytearray(self.saved_bytes(sequence))
        size = len(state)
        written = llama_cpp.llama_state_seq_get_data(self._context, _seen_by_c(state), size, sequence)
        return state if written == size else bytearray()

    def restore(self, sequence: int, state: bytearray) -> bool:
        """Put back what was saved, into any sequence; False, and an empty sequence, if it does not fit."""
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        if state and llama_cpp.llama_state_seq_set_data(self._context, _seen_by_c(state), len(state), sequence):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        return False


def scores_bytes(heads: int, context_tokens: int, sequences: int) -> int:
    """What a pass holds to say how much each row attends to each token before it.

    0 where that would be too much: flash attention, which is slower here, does without.
    """
    needed = (LARGEST_STEP + sequences) * context_tokens * heads * _BYTES_PER_SCORE
    return needed if needed <= _MOST_SCORES_BYTES else 0


def _seen_by_c(state: bytearray) -> Any:
    return (ctypes.c_uint8 * len(state)).from_buffer(state)
