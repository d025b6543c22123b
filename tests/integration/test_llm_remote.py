"""The remote backend, with a server that misbehaves on command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from services.llm.backends.base import Facts, Piece, Prompt, Sampling
from services.llm.backends.remote.backend import RemoteBackend, candidate
from services.llm.backends.remote.breaker import CircuitBreaker
from services.llm.backends.remote.credentials import GigaChatToken
from sluice.environment import SettingsError
from sluice.errors import SluiceError, TemporarilyUnavailable
from sluice.settings import LlmServiceSettings
from sluice.testing.service_process import running_service
from sluice.wire.asgi import Malformed
from sluice.wire.completions import ChatMessage, JsonSchemaFormat, ResponseFormat
from tests.integration.llm_models import Llm, chunks, streamed_text
from tests.remote_model import KEY, RemoteModel, remote_model

SENTENCE = "A lock raises boats to the next level of the canal."


@pytest.fixture
def remote() -> Iterator[RemoteModel]:
    with remote_model(SENTENCE) as model:
        yield model


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings_for(remote: RemoteModel, **changes: Any) -> LlmServiceSettings:
    return LlmServiceSettings(
        **{
            "remote_url": f"{remote.url}/v1",
            "remote_model": "theirs",
            "remote_attempts": 3,
            "remote_backoff_seconds": 0.01,
            **changes,
        }
    )


def a_prompt(**changes: Any) -> Prompt:
    return Prompt(**{"messages": [ChatMessage(role="user", content="What does a lock raise?")], **changes})


async def told(backend: RemoteBackend, **changes: Any) -> list[Piece | Facts]:
    answer = await backend.prepare(a_prompt(**changes))
    async with aclosing(answer.pieces()) as pieces:
        return [piece async for piece in pieces]


async def text(backend: RemoteBackend, **changes: Any) -> str:
    return "".join(piece.text for piece in await told(backend, **changes) if isinstance(piece, Piece)).strip()


def run(remote: RemoteModel, case: Any, breaker: CircuitBreaker | None = None, **changes: Any) -> None:
    async def with_backend() -> None:
        backend = RemoteBackend(settings_for(remote, **changes), breaker)
        try:
            await case(backend)
        finally:
            await backend.close()

    asyncio.run(asyncio.wait_for(with_backend(), 60))


def test_the_answer_its_end_and_its_usage_are_the_servers(remote: RemoteModel) -> None:
    async def case(backend: RemoteBackend) -> None:
        found = await told(backend, max_tokens=3, sampling=Sampling(temperature=0.5, seed=4))
        assert "".join(piece.text for piece in found if isinstance(piece, Piece)) == "A lock raises "
        facts = [piece for piece in found if isinstance(piece, Facts)]
        assert facts[-1].finish_reason == "length"
        assert facts[0].usage is not None
        assert facts[0].usage.prompt_tokens == 11

    run(remote, case)
    (body,) = remote.bodies
    assert body["model"] == "theirs"
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.5, 4, 3)
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("fault", ["429", "502", "503", "504"])
def test_a_failure_before_the_answer_is_tried_again(remote: RemoteModel, fault: str) -> None:
    async def case(backend: RemoteBackend) -> None:
        remote.faults = [fault, fault]
        assert await text(backend) == SENTENCE
        assert len(remote.bodies) == 3

    run(remote, case)


@pytest.mark.parametrize("fault", ["cut", "garbage"])
def test_a_failure_in_the_middle_of_the_answer_is_not_tried_again(remote: RemoteModel, fault: str) -> None:
    async def case(backend: RemoteBackend) -> None:
        remote.faults = [fault]
        with pytest.raises(TemporarilyUnavailable) as broken:
            await text(backend)
        assert broken.value.code == "remote_unavailable"
        assert len(remote.bodies) == 1

    run(remote, case)


@pytest.mark.parametrize(
    ("reason", "error", "code", "failures"),
    [
        ("error", TemporarilyUnavailable, "remote_unavailable", 1),
        # Asked again, the server would do the same: the request is refused, and the server is well.
        ("content_filter", Malformed, "remote_refused", 0),
        ("blacklist", Malformed, "remote_refused", 0),
    ],
)
def test_what_the_server_broke_off_does_not_look_like_an_answer(
    remote: RemoteModel, reason: str, error: type[SluiceError], code: str, failures: int
) -> None:
    remote.finish_reason = reason

    async def case(backend: RemoteBackend) -> None:
        answer = await backend.prepare(a_prompt())
        async with aclosing(answer.pieces()) as pieces:
            received = [await anext(pieces) for _ in SENTENCE.split()]
            with pytest.raises(error) as broken:
                await anext(pieces)
        assert broken.value.code == code
        assert "".join(piece.text for piece in received if isinstance(piece, Piece)).strip() == SENTENCE
        assert backend.stats()["failures_total"] == failures
        assert len(remote.bodies) == 1

    run(remote, case)


def test_without_retries_the_first_failure_is_told_with_when_to_come_again(remote: RemoteModel) -> None:
    async def case(backend: RemoteBackend) -> None:
        remote.faults = ["429"]
        with pytest.raises(TemporarilyUnavailable) as refused:
            await text(backend)
        assert refused.value.retry_after == 7
        assert len(remote.bodies) == 1

    run(remote, case, remote_attempts=1)
    assert LlmServiceSettings().remote_attempts == 1


def test_a_server_that_falls_silent_is_given_up(remote: RemoteModel) -> None:
    async def case(backend: RemoteBackend) -> None:
        remote.faults = ["hang"]
        began = time.monotonic()
        with pytest.raises(TemporarilyUnavailable):
            await text(backend)
        assert time.monotonic() - began < 20

    run(remote, case, remote_timeout=0.3)


@pytest.mark.parametrize("status", ["400", "422"])
def test_a_refused_request_is_the_callers_and_is_not_tried_again(remote: RemoteModel, status: str) -> None:
    async def case(backend: RemoteBackend) -> None:
        for _ in range(10):
            remote.faults = [status]
            with pytest.raises(Malformed):
                await text(backend)
        assert len(remote.bodies) == 10
        assert await text(backend) == SENTENCE

    run(remote, case)


def test_after_five_failures_nobody_asks_for_thirty_seconds_and_then_one_does(remote: RemoteModel) -> None:
    clock = Clock()

    async def case(backend: RemoteBackend) -> None:
        remote.faults = ["500"] * 6
        for _ in range(5):
            with pytest.raises(TemporarilyUnavailable):
                await text(backend)
        clock.now += 29
        with pytest.raises(TemporarilyUnavailable) as refused:
            await text(backend)
        assert (refused.value.code, refused.value.retry_after, len(remote.bodies)) == ("remote_circuit_open", 1, 5)
        assert backend.stats()["circuit_open"] == 1
        # Half-open: the one that may pass fails, so it is open again.
        clock.now += 2
        with pytest.raises(TemporarilyUnavailable):
            await text(backend)
        with pytest.raises(SluiceError, match="left alone"):
            await text(backend)
        # The next one that may pass succeeds.
        clock.now += 31
        assert await text(backend) == SENTENCE
        assert await text(backend) == SENTENCE
        assert len(remote.bodies) == 8

    run(remote, case, CircuitBreaker(5, clock=clock))


@pytest.mark.parametrize(("settings", "asked"), [({}, 9), ({"remote_breaker_failures": 3}, 3)])
def test_a_server_that_fails_is_left_alone_only_if_the_settings_say_so(
    remote: RemoteModel, settings: dict[str, int], asked: int
) -> None:
    async def case(backend: RemoteBackend) -> None:
        remote.faults = ["500"] * 9
        for _ in range(9):
            with pytest.raises(TemporarilyUnavailable):
                await text(backend)
        assert len(remote.bodies) == asked

    run(remote, case, **settings)


def test_an_answer_that_we_end_shows_that_the_server_is_well(remote: RemoteModel) -> None:
    clock = Clock()
    breaker = CircuitBreaker(5, clock=clock)
    for _ in range(5):
        breaker.failed()
    clock.now += 31

    async def case(backend: RemoteBackend) -> None:
        answer = await backend.prepare(a_prompt())
        async with aclosing(answer.pieces()) as pieces:
            async for _ in pieces:
                break
        # Two at once: it is not half-open any more.
        assert await asyncio.gather(text(backend), text(backend)) == [SENTENCE, SENTENCE]

    run(remote, case, breaker)


def test_half_open_lets_one_pass_and_who_goes_away_decides_nothing() -> None:
    clock = Clock()
    breaker = CircuitBreaker(5, clock=clock)
    for _ in range(5):
        breaker.enter()
        breaker.failed()
    clock.now += 31

    breaker.enter()
    with pytest.raises(TemporarilyUnavailable):
        breaker.enter()
    breaker.gave_up()
    breaker.enter()
    breaker.succeeded()
    breaker.enter()
    breaker.enter()


def test_closing_the_answer_closes_the_connection(remote: RemoteModel) -> None:
    async def case(backend: RemoteBackend) -> None:
        remote.faults = ["hang"]
        answer = await backend.prepare(a_prompt())
        async with aclosing(answer.pieces()) as pieces:
            await anext(pieces)
        for _ in range(500):
            if remote.left:
                break
            await asyncio.sleep(0.01)
        assert remote.left == 1
        assert backend.stats()["failures_total"] == 0

    run(remote, case)


def test_gigachats_token_is_bought_once_renewed_in_time_and_after_a_refusal(remote: RemoteModel) -> None:
    remote.needs_token = True

    async def case(backend: RemoteBackend) -> None:
        assert [await text(backend) for _ in range(3)] == [SENTENCE] * 3
        assert len(remote.tokens) == 1
        # Taken back before its time.
        remote.tokens.append("another")
        assert await text(backend) == SENTENCE
        assert len(remote.tokens) == 3
        # About to run out.
        remote.token_seconds = 30
        remote.tokens.append("yet another")
        assert await text(backend) == SENTENCE
        sold = len(remote.tokens)
        assert await text(backend) == SENTENCE
        assert len(remote.tokens) == sold + 1

    gigachat = {"remote_kind": "gigachat", "remote_auth_url": f"{remote.url}/oauth", "remote_key": KEY}
    run(remote, case, **gigachat)
    assert "stream_options" not in remote.bodies[0]


def test_a_late_refusal_of_an_old_token_leaves_the_new_one(remote: RemoteModel) -> None:
    async def case() -> None:
        async with httpx.AsyncClient() as http:
            token = GigaChatToken(http, f"{remote.url}/oauth", KEY, "GIGACHAT_API_PERS")
            old = await token.header()
            token.refused(old)
            new = await token.header()
            token.refused(old)
            assert await token.header() == new != old

    asyncio.run(case())
    assert remote.sign_ins == 2


@pytest.mark.parametrize(("key", "outcome"), [(KEY, str), ("wrong", TemporarilyUnavailable)])
def test_one_sign_in_and_its_failure_are_for_all_that_wait(remote: RemoteModel, key: str, outcome: type) -> None:
    async def case(backend: RemoteBackend) -> None:
        leaving = asyncio.create_task(text(backend))
        waiting = [asyncio.create_task(text(backend)) for _ in range(5)]
        await asyncio.sleep(0)
        leaving.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in outcomes] == [outcome] * 5
        assert remote.sign_ins == 1

    remote.needs_token = True
    run(remote, case, remote_kind="gigachat", remote_auth_url=f"{remote.url}/oauth", remote_key=key)


def test_a_wrong_key_is_said_to_be_wrong(remote: RemoteModel) -> None:
    async def case(backend: RemoteBackend) -> None:
        with pytest.raises(TemporarilyUnavailable) as refused:
            await text(backend)
        assert refused.value.code == "remote_unauthorized"
        assert "SLUICE_LLM_REMOTE_KEY" in refused.value.detail

    gigachat = {"remote_kind": "gigachat", "remote_auth_url": f"{remote.url}/oauth", "remote_key": "wrong"}
    run(remote, case, **gigachat)


@pytest.mark.parametrize(
    "changes",
    [{"grammar": 'root ::= "a"'}, {"raw": True}, {"sampling": Sampling(top_k=3)}],
)
def test_what_the_server_would_not_do_is_refused_and_not_ignored(remote: RemoteModel, changes: dict[str, Any]) -> None:
    async def case(backend: RemoteBackend) -> None:
        with pytest.raises(Malformed) as refused:
            await text(backend, **changes)
        assert refused.value.code == "unsupported_parameter"

    run(remote, case)
    assert remote.bodies == []


def test_a_schema_is_passed_on(remote: RemoteModel) -> None:
    form = ResponseFormat(type="json_schema", json_schema=JsonSchemaFormat(schema={"type": "object"}))

    run(remote, lambda backend: text(backend, response_format=form))

    assert remote.bodies[0]["response_format"] == {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}


@pytest.mark.parametrize("settings", [{}, {"remote_url": "x", "remote_model": "y", "remote_kind": "gigachat"}])
def test_settings_that_name_no_server_are_refused_with_the_variable(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="SLUICE_LLM_REMOTE_"):
        candidate(LlmServiceSettings(**settings))


def test_the_service_says_whose_model_answers_and_streams_through(remote: RemoteModel) -> None:
    with (
        running_service(
            "llm", backend="remote", remote_url=f"{remote.url}/v1", remote_model="theirs", remote_key="sesame"
        ) as service,
        Llm(service) as llm,
    ):
        answer = llm.ask(stream=True, stream_options={"include_usage": True})
        assert streamed_text(answer.text).strip() == SENTENCE
        assert {chunk["model"] for chunk in chunks(answer.text)[:-1]} == {"remote:theirs"}
        assert chunks(answer.text)[-2]["usage"]["prompt_tokens"] == 11
        remote.faults = ["503"]
        failed = llm.ask()
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "7")
        shown = llm.http.get("/config")
        assert shown.json()["remote_key"] == "**********"
        assert "sesame" not in shown.text
