"""One answer while it is written."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from uuid import uuid4

from services.llm.backends.base import Facts, PreparedAnswer
from services.llm.metrics import LlmMetrics
from services.llm.stopping import AnswerLimits
from sluice.wire.completions import FinishReason, PromptTokensDetails, Usage


class Generation:
    """An answer: its identity, its text as it comes, and how it ended."""

    def __init__(
        self, backend_name: str, answer: PreparedAnswer, *, most_tokens: int, stop: Sequence[str], metrics: LlmMetrics
    ) -> None:
        """`most_tokens` has a prompt with its answer at most, whatever the request claims."""
        self.id = uuid4().hex
        self.created = int(time.time())
        self.backend_name = backend_name
        self._answer = answer
        self._most_tokens = most_tokens
        self._limits = AnswerLimits(stop, answer.max_tokens)
        self._cached_tokens: int | None = None
        self._counted: Usage | None = None
        self._metrics = metrics

    async def texts(self) -> AsyncGenerator[str, None]:
        """The answer, piece by piece, up to a stop string or the limit of tokens."""
        began = time.monotonic()
        try:
            async with aclosing(self._answer.pieces()) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Facts):
                        self._learn(piece)
                        continue
                    if not self._limits.tokens:
                        self._metrics.first_piece.observe(time.monotonic() - began)
                    if text := self._limits.feed(piece):
                        yield text
                    if self._limits.finish_reason:
                        return
            if text := self._limits.end():
                yield text
        finally:
            usage = self.usage
            self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
            self._metrics.tokens.labels("completion").inc(usage.completion_tokens)
            self._metrics.tokens.labels("cached").inc(self._cached_tokens or 0)

    def _learn(self, facts: Facts) -> None:
        if facts.cached_tokens is not None:
            self._cached_tokens = facts.cached_tokens
        if facts.finish_reason is not None:
            self._limits.reason_of_the_end = facts.finish_reason
        self._counted = facts.usage or self._counted

    async def whole_text(self) -> str:
        """The answer at once."""
        async with aclosing(self.texts()) as texts:
            return "".join([text async for text in texts])

    @property
    def tokens_at_most(self) -> int:
        """Tokens to read and to write, as far as is known beforehand."""
        return min(self._answer.prompt_tokens + (self._answer.max_tokens or 0), self._most_tokens)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended, once it has."""
        return self._limits.finish_reason or "stop"

    @property
    def usage(self) -> Usage:
        """Tokens read and written so far."""
        if self._counted is not None:
            return self._counted
        cached = self._cached_tokens
        return Usage(
            prompt_tokens=self._answer.prompt_tokens,
            completion_tokens=self._limits.tokens,
            total_tokens=self._answer.prompt_tokens + self._limits.tokens,
            prompt_tokens_details=None if cached is None else PromptTokensDetails(cached_tokens=cached),
        )
