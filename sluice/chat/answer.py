"""Stream one answer, and save it: the question to passages, the passages to a model, the model's words to the client.

No database connection is held while the model writes. Closing the generator stops the model and keeps what it wrote.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from anyio import CancelScope
from prometheus_client import Histogram
from sqlalchemy.exc import SQLAlchemyError

from sluice.cache import Cache
from sluice.chat import prompt, repository
from sluice.chat.citations import CitationReader, Cited
from sluice.chat.models import Message, Speaker
from sluice.completion_client import AnswerBegan, AnswerEnded, CompletionClient, TextPiece
from sluice.db.session import Sessions, is_outage, tenant_session
from sluice.errors import SluiceError, TemporarilyUnavailable
from sluice.identity.tokens import Caller
from sluice.ids import new_id
from sluice.retrieval.passages import Passage
from sluice.retrieval.search import Found, Question, Search
from sluice.settings import CompletionClientSettings, RetrievalSettings
from sluice.telemetry import logger
from sluice.vector_points import PassageFilter
from sluice.wire import events
from sluice.wire.completions import ChatCompletionRequest
from sluice.wire.events import Event, FinishReason

log = logger()
time_to_first_token = Histogram(
    "sluice_ttft_seconds",
    "Time from the question to the first word of the answer",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
)
# How often somebody's wish to stop is looked for while the model writes.
_LOOK_SECONDS: Final = 0.25
_NOTHING_FOUND: Final = {
    "en": "Nothing in these sources bears on the question.",
    "ru": "В этих источниках нет ничего по этому вопросу.",
}


@dataclass(frozen=True)
class Asked:
    """A question, who asks it, and where to look."""

    caller: Caller
    question: str
    within: PassageFilter
    conversation_id: UUID | None
    max_tokens: int


@dataclass
class _Answer:
    """What has come of a question so far."""

    conversation_id: UUID
    message_id: UUID
    history: Sequence[tuple[Speaker, str]]
    started: float
    text: str = ""
    model: str | None = None
    finish_reason: FinishReason = "canceled"
    cited: list[Cited] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def mark(self, moment: str) -> None:
        self.milliseconds[moment] = round((time.perf_counter() - self.started) * 1000, 1)


class Answerer:
    """Answers questions of any tenant."""

    def __init__(
        self,
        sessions: Sessions,
        search: Search,
        completions: CompletionClient,
        cache: Cache,
        model: CompletionClientSettings,
        retrieval: RetrievalSettings,
    ) -> None:
        self._sessions = sessions
        self._search = search
        self._completions = completions
        self._cache = cache
        self._model = model
        self._retrieval = retrieval

    async def check(self, asked: Asked) -> None:
        """Raise `NotFound` when the question names a conversation or a source that is not the caller's."""
        await asyncio.to_thread(self._check, asked)

    async def answer(
        self, asked: Asked, *, describe: Callable[[SluiceError], dict[str, Any]]
    ) -> AsyncGenerator[Event, None]:
        """The answer as events, from `message.start` to `message.end` or `error`, saved however it ends."""
        try:
            answer = await asyncio.to_thread(self._begin, asked)
            yield events.MessageStart(conversation_id=answer.conversation_id, message_id=answer.message_id)
            async with self._kept(asked, answer), aclosing(self._stream(asked, answer)) as stream:
                async for event in stream:
                    yield event
            yield events.MessageEnd(
                message_id=answer.message_id,
                finish_reason=answer.finish_reason,
                model=answer.model,
                milliseconds=answer.milliseconds,
            )
        except Exception as error:  # noqa: BLE001 - the response has begun: an event is all that can still be said
            yield events.Failure.model_validate(describe(_as_problem(error)))

    @asynccontextmanager
    async def _kept(self, asked: Asked, answer: _Answer) -> AsyncIterator[None]:
        """Save the answer however the block ends; what was written before a fault or a stop is worth keeping."""
        try:
            yield
        except Exception:
            answer.finish_reason = "error"
            raise
        finally:
            # When the client is gone, whatever this task awaits is canceled, unless it is shielded.
            with CancelScope(shield=True):
                await asyncio.to_thread(self._save, asked, answer)

    async def _stream(self, asked: Asked, answer: _Answer) -> AsyncGenerator[Event, None]:
        yield events.RetrievalStart()
        question = Question(asked.question, asked.within, self._retrieval.passages)
        found = await asyncio.to_thread(self._search.find, asked.caller.tenant_id, question)
        answer.mark("retrieval")
        if not found.passages:
            answer.finish_reason = "no_context"
            detail = _NOTHING_FOUND.get(found.lang, _NOTHING_FOUND["en"])
            yield events.RetrievalEmpty(lang=found.lang, degraded=found.degraded, detail=detail)
            return
        yield events.RetrievalResult(
            lang=found.lang,
            degraded=found.degraded,
            passages=[shown(number, passage) for number, passage in enumerate(found.passages, start=1)],
        )
        async with aclosing(self._write(asked, answer, found)) as written:
            async for event in written:
                yield event
        yield events.Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)

    async def _write(self, asked: Asked, answer: _Answer, found: Found) -> AsyncGenerator[Event, None]:
        reader = CitationReader(found.passages)
        request = self._request(asked, answer, found)
        next_look = 0.0
        async with aclosing(self._completions.stream(request)) as completion:
            async for event in completion:
                match event:
                    case AnswerBegan():
                        answer.model = event.model
                    case TextPiece():
                        if not answer.text:
                            answer.mark("first_word")
                            time_to_first_token.observe(time.perf_counter() - answer.started)
                        answer.text += event.text
                        yield events.TextDelta(text=event.text)
                        for cited in reader.feed(event.text):
                            answer.cited.append(cited)
                            yield events.CitationMade(number=cited.number, quote=cited.quote, place=_place(cited))
                    case AnswerEnded():
                        answer.finish_reason = event.finish_reason
                        if event.usage:
                            answer.prompt_tokens = event.usage.prompt_tokens
                            answer.completion_tokens = event.usage.completion_tokens
                        return
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + _LOOK_SECONDS
                    if await self._stop_wanted(asked, answer):
                        answer.finish_reason = "canceled"
                        return

    async def _stop_wanted(self, asked: Asked, answer: _Answer) -> bool:
        caller = asked.caller
        return await asyncio.to_thread(self._cache.should_stop, caller.tenant_id, caller.user_id, answer.message_id)

    def _request(self, asked: Asked, answer: _Answer, found: Found) -> ChatCompletionRequest:
        mark = f"<<{secrets.token_hex(6)}>>"
        return ChatCompletionRequest(
            model=self._model.model,
            messages=prompt.messages(asked.question, found.passages, answer.history, lang=found.lang, mark=mark),
            documents=prompt.documents(found.passages),
            max_tokens=asked.max_tokens,
        )

    def _check(self, asked: Asked) -> None:
        with tenant_session(self._sessions, asked.caller.tenant_id) as session:
            if asked.conversation_id is not None:
                repository.get(session, asked.caller.user_id, asked.conversation_id)
            self._search.check(session, asked.within)

    def _begin(self, asked: Asked) -> _Answer:
        started = time.perf_counter()
        with tenant_session(self._sessions, asked.caller.tenant_id) as session:
            conversation = repository.open_conversation(
                session, asked.caller.user_id, asked.conversation_id, asked.question
            )
            said = repository.messages(session, conversation.id)
            history = [(message.speaker, message.text) for message in said]
            session.add(Message(conversation_id=conversation.id, speaker=Speaker.USER, text=asked.question))
            # Gives the question its id, before the answer gets its own: messages are read in the order of their ids.
            session.flush()
            return _Answer(conversation.id, new_id(), history, started)

    def _save(self, asked: Asked, answer: _Answer) -> None:
        answer.mark("total")
        with tenant_session(self._sessions, asked.caller.tenant_id) as session:
            session.add(
                Message(
                    id=answer.message_id,
                    conversation_id=answer.conversation_id,
                    speaker=Speaker.ASSISTANT,
                    text=answer.text,
                    finish_reason=answer.finish_reason,
                    model=answer.model,
                    timings=answer.milliseconds,
                )
            )
            session.flush()
            repository.cite(session, answer.message_id, answer.cited)


def _as_problem(error: Exception) -> SluiceError:
    if isinstance(error, SluiceError):
        log.warning("chat.failed", code=error.code, detail=error.detail)
        return error
    if isinstance(error, SQLAlchemyError) and is_outage(error):
        log.warning("chat.failed", code="database_unavailable")
        return TemporarilyUnavailable("PostgreSQL does not answer.", code="database_unavailable")
    log.error("chat.failed", exc_info=error)
    return SluiceError(
        "Something went wrong that nobody foresaw. The log has it under this request's id.", code="internal_error"
    )


def shown(number: int, passage: Passage) -> events.FoundPassage:
    """A passage as clients see it, by the number under which an answer cites it."""
    return events.FoundPassage(
        number=number,
        document_id=passage.document_id,
        document_name=passage.document_name,
        source_id=passage.source_id,
        version=passage.version,
        chunk_id=passage.chunk_id,
        mime=passage.mime,
        page=passage.page,
        boxes=passage.boxes(),
        last_page=passage.last_page,
        heading_path=passage.heading_path,
        lang=passage.lang,
        text=passage.text,
        score=passage.score,
        scores=passage.scores,
    )


def _place(cited: Cited) -> events.Place:
    passage = cited.passage
    return events.Place(
        document_id=passage.document_id,
        document_name=passage.document_name,
        source_id=passage.source_id,
        version=passage.version,
        chunk_id=passage.chunk_id,
        mime=passage.mime,
        page=cited.page,
        boxes=cited.boxes,
    )
