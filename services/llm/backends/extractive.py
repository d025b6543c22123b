"""Answers without a model: the passages' own sentences, word for word, each with its citation.

A token is a word together with the white space behind it, so usage is counted in words.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator

from services.llm.backends.base import CompletionBackend, Piece, Prompt
from services.llm.extraction import Quote, select_quotes

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


def load() -> CompletionBackend:
    """The backend; it needs no files."""
    return ExtractiveBackend()


class ExtractiveBackend:
    """Quotes the sentences that best support an answer to the last user message."""

    name = "extractive"
    slots = _SLOTS
    responsive = True

    def tokens(self, text: str) -> list[str]:
        """Words, each with the white space behind it."""
        return _TOKEN.findall(text)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """The quotes, a word at a time."""
        question = next((m.content for m in reversed(prompt.messages) if m.role == "user"), "")
        # Stemming a long prompt takes a while, and other streams must not wait for it.
        quotes = await asyncio.to_thread(select_quotes, question, prompt.passages)
        answer = "".join(_cited(quotes)) if quotes else _apology(question, has_passages=bool(prompt.passages))
        for word in self.tokens(answer):
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
