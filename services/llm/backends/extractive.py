"""Answers without a model: the passages' own sentences, word for word, each with its citation.

A token is a word together with the white space behind it, so usage is counted in words.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from functools import partial

from services.llm.backends.base import Facts, Piece, Prompt
from services.llm.candidate import Candidate
from services.llm.extraction import Quote, select_quotes
from sluice.settings import LlmServiceSettings
from sluice.wire.asgi import Malformed

# The answer is computed in milliseconds; more slots would only let more slow readers hold one.
_SLOTS = 16
_TOKEN = re.compile(r"\S+\s*|\s+")
_LETTERS = re.compile(r"[^\W\d_]")
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)

_NOT_ANSWERED = {
    "en": "The passages do not answer this question.",
    "ru": "В найденных фрагментах нет ответа на этот вопрос.",
}
_NO_PASSAGES = {
    "en": "I can only quote passages, and this request came without any.",
    "ru": "Я могу только цитировать фрагменты документов, а в этом запросе их нет.",
}


def candidate(settings: LlmServiceSettings) -> Candidate:
    """The backend; it needs no files."""
    return Candidate(ExtractiveBackend.name, partial(ExtractiveBackend, settings.max_prompt_tokens))


class ExtractiveBackend:
    """Quotes the sentences that best support an answer to the last user message."""

    name = "extractive"
    slots = _SLOTS
    responsive = True

    def __init__(self, context_tokens: int) -> None:
        self.context_tokens = context_tokens

    async def tokens(self, text: str) -> list[str]:
        """Words, each with the white space behind it, found in another thread."""
        return await asyncio.to_thread(_TOKEN.findall, text)

    async def prepare(self, prompt: Prompt) -> ExtractiveAnswer:
        """Count the words; `Malformed` if they are too many, or another form is asked for than quotations."""
        if prompt.grammar is not None or (prompt.response_format and prompt.response_format.type != "text"):
            raise Malformed(
                "The extractive backend quotes documents: its answers cannot follow a grammar or a schema.",
                code="unsupported_parameter",
                param="grammar" if prompt.grammar is not None else "response_format",
            )
        count = await asyncio.to_thread(lambda: sum(len(_TOKEN.findall(text)) for text in prompt.texts()))
        if count > self.context_tokens:
            raise Malformed(
                f"The prompt has {count} tokens; {self.context_tokens} are accepted.",
                code="context_length_exceeded",
                param="messages",
            )
        return ExtractiveAnswer(prompt, count)

    def stats(self) -> dict[str, float]:
        """Nothing is counted here."""
        return {}

    async def close(self) -> None:
        """Nothing is held."""


class ExtractiveAnswer:
    """A question and its passages."""

    def __init__(self, prompt: Prompt, prompt_tokens: int) -> None:
        self._prompt = prompt
        self.prompt_tokens = prompt_tokens
        self.max_tokens = prompt.max_tokens

    async def pieces(self) -> AsyncGenerator[Piece | Facts, None]:
        """The quotes, a word at a time."""
        prompt = self._prompt
        question = next((m.content for m in reversed(prompt.messages) if m.role == "user"), "")
        # Stemming a long prompt takes a while, and other streams must not wait for it.
        quotes = await asyncio.to_thread(select_quotes, question, prompt.passages)
        answer = "".join(_cited(quotes)) if quotes else _apology(question, has_passages=bool(prompt.passages))
        for word in _TOKEN.findall(answer):
            yield Piece(word, tokens=1)
            # One word is one step: the other streams, and whoever cancels, get their turn.
            await asyncio.sleep(0)


def _cited(quotes: list[Quote]) -> Iterator[str]:
    for number, quote in enumerate(quotes):
        yield f"{' ' if number else ''}{quote.text} [{quote.passage_id}]"


def _apology(question: str, *, has_passages: bool) -> str:
    letters = len(_LETTERS.findall(question))
    language = "ru" if 2 * len(_CYRILLIC.findall(question)) > letters else "en"
    return (_NOT_ANSWERED if has_passages else _NO_PASSAGES)[language]
