"""Which token comes next."""

from __future__ import annotations

import ctypes
import secrets
from typing import Any

import llama_cpp
import numpy as np

from services.llm.backends.base import Sampling
from services.llm.backends.llama_cpp.errors import GrammarExhausted, GrammarRefused

_SEEDS = 2**32
# How far back penalties look.
_PENALTY_TOKENS = 256
_TOKEN_DATA = np.dtype([("id", np.intc), ("logit", np.single), ("p", np.single)], align=True)


def opened_grammar(vocabulary: Any, grammar: str) -> Any:
    """The sampler of a grammar; `GrammarRefused` if llama.cpp does not take it."""
    found = llama_cpp.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
    if not found:
        raise GrammarRefused(
            "llama.cpp does not take this grammar. Most often a rule begins with itself, directly or through others.",
            param="grammar",
        )
    return found


class Sampler:
    """The chain of samplers of one answer, and the grammar beside it."""

    def __init__(self, vocabulary: Any, vocabulary_size: int, sampling: Sampling, grammar: str | None) -> None:
        """Raises `GrammarRefused` when llama.cpp does not understand the grammar."""
        self._grammar = None
        if grammar is not None:
            self._grammar = opened_grammar(vocabulary, grammar)
            self._candidates = np.empty(vocabulary_size, dtype=_TOKEN_DATA)
        self._vocabulary_size = vocabulary_size
        self._takes_the_best = grammar is None and sampling.temperature <= 0 and not sampling.has_penalties
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for one in _links(sampling, vocabulary_size):
            llama_cpp.llama_sampler_chain_add(self._chain, one)

    def close(self) -> None:
        """Free it."""
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
        if self._grammar:
            llama_cpp.llama_sampler_free(self._grammar)
            self._grammar = None

    def sample(self, context: Any, row: int) -> int:
        """The next token after this row; `GrammarExhausted` if the grammar allows none."""
        if self._takes_the_best:
            # The chain would copy the whole vocabulary first: ten times the work, while all other answers wait.
            return int(self._logits(context, row).argmax())
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context, row))
        logits = self._logits(context, row)
        # To ask the grammar about every token of a large vocabulary takes longer than the model; the best one mostly
        # passes.
        token, allowed = self._chosen(logits, constrained=False)
        if not allowed:
            token, allowed = self._chosen(logits, constrained=True)
            if not allowed:
                raise GrammarExhausted
        # llama.cpp ends the process when a grammar is given a token that it does not allow.
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _logits(self, context: Any, row: int) -> Any:
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), shape=(self._vocabulary_size,))

    def _chosen(self, logits: Any, *, constrained: bool) -> tuple[int, bool]:
        candidates = self._candidates
        candidates["id"] = np.arange(self._vocabulary_size)
        candidates["logit"] = logits
        candidates["p"] = 0
        found = _array_of(candidates)
        if constrained:
            llama_cpp.llama_sampler_apply(self._grammar, found)
            if not np.isfinite(candidates["logit"]).any():
                raise GrammarExhausted
        llama_cpp.llama_sampler_apply(self._chain, found)
        chosen = found.data[found.selected]
        if constrained:
            return chosen.id, chosen.logit != -np.inf
        return chosen.id, self._allows(chosen.id)

    def _allows(self, token: int) -> bool:
        alone = np.array([(token, 1.0, 0.0)], dtype=_TOKEN_DATA)
        llama_cpp.llama_sampler_apply(self._grammar, _array_of(alone))
        return bool(alone[0]["logit"] != -np.inf)


def _array_of(candidates: Any) -> Any:
    data = candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)


def _links(sampling: Sampling, vocabulary_size: int) -> list[Any]:
    """The samplers in the order in which llama.cpp's own server applies them."""
    found = []
    if sampling.has_penalties:
        found.append(
            llama_cpp.llama_sampler_init_penalties(
                vocabulary_size,
                _PENALTY_TOKENS,
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        )
    if sampling.temperature <= 0:
        return [*found, llama_cpp.llama_sampler_init_greedy()]
    seed = secrets.randbelow(_SEEDS) if sampling.seed is None else sampling.seed % _SEEDS
    return [
        *found,
        llama_cpp.llama_sampler_init_top_k(sampling.top_k),
        llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1),
        llama_cpp.llama_sampler_init_temp(sampling.temperature),
        llama_cpp.llama_sampler_init_dist(seed),
    ]
