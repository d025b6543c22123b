"""A model that says what the test wrote for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from sluice.completion_client import AnswerBegan, AnswerEnded, CompletionEvent, TextPiece
from sluice.errors import TemporarilyUnavailable
from sluice.wire.completions import ChatCompletionRequest, Usage


class FakeCompletions:
    """A `CompletionClient` in memory: gives the scripted pieces to every request."""

    def __init__(self, pieces: Sequence[str] = ("A scripted ", "answer."), *, model: str = "scripted") -> None:
        self.available = True
        self.breaks_after: int | None = None
        """So many pieces come before the connection breaks; None: all of them, and a proper end."""
        self.requests: list[ChatCompletionRequest] = []
        self.abandoned = 0
        """Answers that were closed before their end."""
        self._pieces = pieces
        self._model = model

    async def stream(self, request: ChatCompletionRequest) -> AsyncGenerator[CompletionEvent, None]:
        """`AnswerBegan`, the pieces up to the request's limit of tokens, `AnswerEnded`."""
        if not self.available:
            raise TemporarilyUnavailable("The scripted model is switched off.", code="llm_unavailable")
        self.requests.append(request)
        limit = request.token_limit or len(self._pieces)
        shown = self._pieces[:limit]
        try:
            yield AnswerBegan(self._model)
            for number, piece in enumerate(shown):
                if number == self.breaks_after:
                    raise TemporarilyUnavailable("The scripted model broke off.", code="llm_unavailable")
                yield TextPiece(piece)
            cut = limit < len(self._pieces)
            yield AnswerEnded("length" if cut else "stop", self._usage(request, len(shown)))
        except GeneratorExit:
            self.abandoned += 1
            raise

    @staticmethod
    def _usage(request: ChatCompletionRequest, written: int) -> Usage:
        read = sum(len(message.content.split()) for message in request.messages)
        return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
