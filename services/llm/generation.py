"""One answer while it is written."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from uuid import uuid4

from services.llm.backends.base import CompletionBackend, Prompt
from services.llm.metrics import LlmMetrics
from services.llm.stopping import AnswerLimits
from sluice.wire.completions import FinishReason, Usage


class Generation:
    """An answer: its identity, its text as it comes, and how it ended."""

    def __init__(
        self,
        backend: CompletionBackend,
        prompt: Prompt,
        *,
        stop: Sequence[str],
        max_tokens: int | None,
        metrics: LlmMetrics,
    ) -> None:
        self.id = uuid4().hex
        self.created = int(time.time())
        self.backend_name = backend.name
        self._backend = backend
        self._prompt = prompt
        self._prompt_tokens = sum(len(backend.tokens(text)) for text in prompt.texts())
        self._limits = AnswerLimits(stop, max_tokens)
        self._metrics = metrics

    async def texts(self) -> AsyncGenerator[str, None]:
        """The answer, piece by piece, up to a stop string or the limit of tokens."""
        began = time.monotonic()
        try:
            async with aclosing(self._backend.generate(self._prompt)) as pieces:
                async for piece in pieces:
                    if not self._limits.tokens:
                        self._metrics.first_piece.observe(time.monotonic() - began)
                    if text := self._limits.feed(piece):
                        yield text
                    if self._limits.finish_reason:
                        return
            if text := self._limits.end():
                yield text
        finally:
            self._metrics.tokens.labels("prompt").inc(self._prompt_tokens)
            self._metrics.tokens.labels("completion").inc(self._limits.tokens)

    async def whole_text(self) -> str:
        """The answer at once."""
        async with aclosing(self.texts()) as texts:
            return "".join([text async for text in texts])

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the backend reads."""
        return self._prompt_tokens

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ended, once it has."""
        return self._limits.finish_reason or "stop"

    @property
    def usage(self) -> Usage:
        """Tokens read and written so far."""
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._limits.tokens,
            total_tokens=self._prompt_tokens + self._limits.tokens,
        )
