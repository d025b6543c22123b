"""The two shapes in which OpenAI's clients read an answer: chat completions and completions."""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from services.llm.generation import Generation
from sluice.wire.completions import (
    AnswerMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    FinishReason,
    TextChoice,
    TextCompletion,
    Usage,
)


class Face(Protocol):
    """How an answer looks, whole and in chunks."""

    def whole(self, text: str) -> BaseModel:
        """The answer at once."""

    def opening(self) -> BaseModel | None:
        """The chunk before the first text, if there is one."""

    def piece(self, text: str) -> BaseModel:
        """A chunk of text."""

    def ending(self) -> BaseModel:
        """The chunk that says why the answer ended."""

    def usage(self) -> BaseModel:
        """The chunk with the usage and no choices."""


class ChatFace:
    """`chat.completion` and `chat.completion.chunk`."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def whole(self, text: str) -> ChatCompletion:
        """The answer at once."""
        generation = self._generation
        return ChatCompletion(
            id=f"chatcmpl-{generation.id}",
            created=generation.created,
            model=generation.backend_name,
            system_fingerprint=generation.backend_name,
            choices=[ChatChoice(message=AnswerMessage(content=text), finish_reason=generation.finish_reason)],
            usage=generation.usage,
        )

    def opening(self) -> ChatCompletionChunk:
        """The chunk with the role."""
        return self._chunk([ChatChunkChoice(delta=ChatDelta(role="assistant", content=""))])

    def piece(self, text: str) -> ChatCompletionChunk:
        """A chunk of text."""
        return self._chunk([ChatChunkChoice(delta=ChatDelta(content=text))])

    def ending(self) -> ChatCompletionChunk:
        """The chunk that says why the answer ended."""
        return self._chunk([ChatChunkChoice(delta=ChatDelta(), finish_reason=self._generation.finish_reason)])

    def usage(self) -> ChatCompletionChunk:
        """The chunk with the usage and no choices."""
        return self._chunk([], self._generation.usage)

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None = None) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=f"chatcmpl-{self._generation.id}",
            created=self._generation.created,
            model=self._generation.backend_name,
            system_fingerprint=self._generation.backend_name,
            choices=choices,
            usage=usage,
        )


class TextFace:
    """`text_completion`."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def whole(self, text: str) -> TextCompletion:
        """The answer at once."""
        choice = TextChoice(text=text, finish_reason=self._generation.finish_reason)
        return self._completion([choice], self._generation.usage)

    def opening(self) -> None:
        """Nothing stands before the first text."""

    def piece(self, text: str) -> TextCompletion:
        """A chunk of text."""
        return self._completion([TextChoice(text=text)])

    def ending(self) -> TextCompletion:
        """The chunk that says why the answer ended."""
        reason: FinishReason = self._generation.finish_reason
        return self._completion([TextChoice(text="", finish_reason=reason)])

    def usage(self) -> TextCompletion:
        """The chunk with the usage and no choices."""
        return self._completion([], self._generation.usage)

    def _completion(self, choices: list[TextChoice], usage: Usage | None = None) -> TextCompletion:
        return TextCompletion(
            id=f"cmpl-{self._generation.id}",
            created=self._generation.created,
            model=self._generation.backend_name,
            system_fingerprint=self._generation.backend_name,
            choices=choices,
            usage=usage,
        )
