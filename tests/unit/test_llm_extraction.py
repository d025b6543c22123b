"""Which sentences answer a question."""

from __future__ import annotations

import asyncio

from services.llm.backends.base import Piece, Prompt
from services.llm.backends.extractive import ExtractiveBackend
from services.llm.extraction import select_quotes
from sluice.wire.completions import ChatMessage, Passage

WATCH = Passage(
    id="1",
    title="uscan",
    text="Tools exist. A watch file tells uscan where new upstream versions are. It is read by uscan (e.g. daily).",
)
KEYS = Passage(id="2", title="Keys", text="The keyring holds the keys of all developers. A lost key must be revoked.")
LOCK = Passage(
    id="3",
    title="Шлюзы",
    text="Судно входит в камеру. Шлюз — это сооружение, которое поднимает суда, т. е. лодки и баржи.",
)


def answer(question: str, *passages: Passage) -> str:
    async def read() -> str:
        prompt = Prompt([ChatMessage(role="user", content=question)], passages)
        answering = await ExtractiveBackend(context_tokens=10_000).prepare(prompt)
        return "".join([piece.text async for piece in answering.pieces() if isinstance(piece, Piece)])

    return asyncio.run(read())


def test_the_answer_is_the_sentence_that_says_it_word_for_word_with_its_citation() -> None:
    assert answer("What is a watch file?", KEYS, WATCH).startswith(
        "A watch file tells uscan where new upstream versions are. [1]"
    )


def test_words_are_matched_in_other_forms() -> None:
    assert "A lost key must be revoked. [2]" in answer("How do I revoke keys?", WATCH, KEYS)


def test_a_russian_question_is_answered_from_russian_text() -> None:
    quoted = "Шлюз — это сооружение, которое поднимает суда, т. е. лодки и баржи. [3]"
    assert quoted in answer("Что такое шлюзы?", WATCH, LOCK)


def test_every_quote_stands_in_the_passage_that_it_cites() -> None:
    passages = {p.id: p for p in (WATCH, KEYS, LOCK)}
    quotes = select_quotes("Which file holds keys and versions?", list(passages.values()))
    assert quotes
    assert all(quote.text in passages[quote.passage_id].text for quote in quotes)


def test_a_sentence_under_a_heading_that_asks_the_question_is_preferred() -> None:
    passage = Passage(
        id="9",
        text="Orphaning a package\n\nTell the others that you stop, and set the maintainer to the QA group.\n\n"
        "Building a package\n\nRun the build in a clean chroot before you do anything else.",
    )
    assert answer("How do I orphan a package?", passage).startswith("Tell the others that you stop")


def test_the_same_sentence_in_two_passages_is_quoted_once() -> None:
    twin = KEYS.model_copy(update={"id": "7"})
    assert answer("What does the keyring hold?", KEYS, twin) == "The keyring holds the keys of all developers. [2]"


def test_at_most_three_sentences_are_quoted() -> None:
    passages = [Passage(id=str(n), text=f"The keyring number {n} holds {word}.") for n, word in enumerate("abcdef")]
    assert len(select_quotes("What does the keyring hold?", passages)) <= 3


def test_no_word_of_the_question_in_any_passage_is_said_honestly_in_the_language_of_the_question() -> None:
    assert answer("Who won the lottery?", WATCH, KEYS) == "The passages do not answer this question."
    assert answer("Кто выиграл лотерею?", WATCH, LOCK) == "В найденных фрагментах нет ответа на этот вопрос."


def test_little_words_alone_support_nothing() -> None:
    assert select_quotes("What is the lottery of all?", [KEYS]) == []


def test_without_passages_it_says_that_it_can_only_quote() -> None:
    assert "only quote passages" in answer("What is a watch file?")
    assert "только цитировать" in answer("Что такое шлюз?")


def test_hostile_text_is_answered_or_refused_but_never_breaks() -> None:
    passages = [Passage(id="1", text="." * 5000), Passage(id="2", text="a" * 20_000), Passage(id="3", text="")]
    assert select_quotes("???", passages) == []
    assert select_quotes("a" * 20_000, passages)
