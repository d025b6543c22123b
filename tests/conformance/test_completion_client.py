"""What every completion client promises, tried on the fake and on LLM itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest

from sluice.completion_client import (
    AnswerBegan,
    AnswerEnded,
    CompletionClient,
    CompletionEvent,
    HttpCompletionClient,
    TextPiece,
)
from sluice.errors import Invalid, TemporarilyUnavailable
from sluice.settings import CompletionClientSettings
from sluice.testing.completions import FakeCompletions
from sluice.testing.service_process import ServiceProcess, free_port, running_service
from sluice.wire.completions import ChatCompletionRequest, ChatMessage, Passage
from tests.remote_model import remote_model

SENTENCE = "A lock raises boats to the next level of the canal."


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service("llm") as running:
        yield running


Case = Callable[[CompletionClient], Awaitable[None]]


@pytest.fixture(scope="module")
def remote_service() -> Iterator[ServiceProcess]:
    """LLM that passes questions on to another server."""
    with (
        remote_model(SENTENCE) as model,
        running_service("llm", backend="remote", remote_url=f"{model.url}/v1", remote_model="theirs") as running,
    ):
        yield running


@pytest.fixture(params=["fake", "service", "remote_service"])
def run(request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Run a case with a client in an event loop of its own."""

    @asynccontextmanager
    async def client() -> AsyncIterator[CompletionClient]:
        if request.param == "fake":
            yield FakeCompletions([f"{word} " for word in SENTENCE.split()])
            return
        running: ServiceProcess = request.getfixturevalue(request.param)
        async with HttpCompletionClient(CompletionClientSettings(url=running.url)) as http_client:
            yield http_client

    async def with_client(case: Case) -> None:
        async with client() as it:
            await case(it)

    return lambda case: asyncio.run(with_client(case))


def a_question(**changes: object) -> ChatCompletionRequest:
    return ChatCompletionRequest(
        model="default",
        messages=[ChatMessage(role="user", content="What does a lock raise?")],
        documents=[Passage(id="1", text=SENTENCE)],
    ).model_copy(update=changes)


async def answer(client: CompletionClient, request: ChatCompletionRequest) -> list[CompletionEvent]:
    return [event async for event in client.stream(request)]


def test_an_answer_begins_with_its_model_and_ends_with_its_reason(run: Callable[[Case], None]) -> None:
    async def case(client: CompletionClient) -> None:
        first, *pieces, last = await answer(client, a_question())
        assert isinstance(first, AnswerBegan)
        assert first.model
        assert all(isinstance(piece, TextPiece) for piece in pieces)
        assert isinstance(last, AnswerEnded)
        assert last.finish_reason == "stop"

    run(case)


def test_the_pieces_make_the_answer(run: Callable[[Case], None]) -> None:
    async def case(client: CompletionClient) -> None:
        pieces = [event.text for event in await answer(client, a_question()) if isinstance(event, TextPiece)]
        assert len(pieces) > 5
        assert "".join(pieces).startswith(SENTENCE)

    run(case)


def test_the_usage_is_told_at_the_end(run: Callable[[Case], None]) -> None:
    async def case(client: CompletionClient) -> None:
        last = (await answer(client, a_question()))[-1]
        assert isinstance(last, AnswerEnded)
        assert last.usage is not None
        assert last.usage.prompt_tokens >= 5
        assert last.usage.completion_tokens >= 11

    run(case)


def test_an_answer_cut_by_its_limit_says_so(run: Callable[[Case], None]) -> None:
    async def case(client: CompletionClient) -> None:
        *_, last = await answer(client, a_question(max_tokens=3))
        assert isinstance(last, AnswerEnded)
        assert last.finish_reason == "length"

    run(case)


def test_an_answer_may_be_abandoned_and_the_next_one_asked(run: Callable[[Case], None]) -> None:
    async def case(client: CompletionClient) -> None:
        async with aclosing(client.stream(a_question())) as events:
            async for event in events:
                if isinstance(event, TextPiece):
                    break
        assert isinstance((await answer(client, a_question()))[-1], AnswerEnded)

    run(case)


def test_answers_side_by_side_do_not_mix(run: Callable[[Case], None]) -> None:
    async def case(client: CompletionClient) -> None:
        alone = await answer(client, a_question())
        together = await asyncio.gather(*(answer(client, a_question()) for _ in range(8)))
        assert all(events == alone for events in together)

    run(case)


def test_a_server_that_is_not_there_is_temporarily_unavailable() -> None:
    async def case() -> None:
        async with HttpCompletionClient(CompletionClientSettings(url=f"http://127.0.0.1:{free_port()}")) as absent:
            with pytest.raises(TemporarilyUnavailable) as refused:
                await answer(absent, a_question())
            assert refused.value.code == "llm_unavailable"

    asyncio.run(case())


def test_a_fake_that_is_switched_off_or_breaks_is_temporarily_unavailable() -> None:
    fake = FakeCompletions(["one ", "two "])
    fake.breaks_after = 1
    with pytest.raises(TemporarilyUnavailable) as broken:
        asyncio.run(answer(fake, a_question()))
    fake.available = False
    with pytest.raises(TemporarilyUnavailable) as refused:
        asyncio.run(answer(fake, a_question()))
    assert broken.value.code == refused.value.code == "llm_unavailable"


def test_a_stream_that_breaks_off_is_temporarily_unavailable() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: ping\n\n")
        await writer.drain()
        writer.close()

    async def case() -> None:
        async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with HttpCompletionClient(CompletionClientSettings(url=url)) as client:
                with pytest.raises(TemporarilyUnavailable) as broken:
                    await answer(client, a_question())
        assert broken.value.code == "llm_unavailable"

    asyncio.run(case())


def test_a_request_that_llm_refuses_is_invalid_and_not_worth_a_retry(service: ServiceProcess) -> None:
    async def case() -> None:
        async with HttpCompletionClient(CompletionClientSettings(url=service.url)) as client:
            too_long = [ChatMessage(role="user", content="word " * 40_000)]
            with pytest.raises(Invalid):
                await answer(client, a_question(messages=too_long))

    asyncio.run(case())


def test_an_abandoned_answer_frees_the_service(service: ServiceProcess) -> None:
    async def case() -> None:
        async with HttpCompletionClient(CompletionClientSettings(url=service.url)) as client:
            async with aclosing(client.stream(a_question())) as events:
                await anext(events)
            async with httpx.AsyncClient(base_url=service.url) as http:
                for _ in range(500):
                    if (await http.get("/stats")).json()["active"] == 0:
                        return
                    await asyncio.sleep(0.01)
        pytest.fail("the slot was never freed")

    asyncio.run(case())
