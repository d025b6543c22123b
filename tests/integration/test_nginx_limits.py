"""How often, how many at a time: what the edge refuses with 429, and whom it counts together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from sluice.identity.roles import Role
from sluice.identity.tokens import Caller, TokenSigner
from sluice.settings import AuthSettings
from tests.integration.nginx_edge import Edge, problem, running_app, running_edge, until

PER_TOKEN = 3
PER_ADDRESS = 5
FIRST_EVENT = b"event: first\ndata: {}\n\n"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with running_app() as running:
        yield running


@pytest.fixture(scope="module")
def edge(api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge with few streams."""
    limits = {"streams_per_token": PER_TOKEN, "streams_per_address": PER_ADDRESS}
    with running_edge(tmp_path_factory.mktemp("limits") / "edge", api=api, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def signer() -> TokenSigner:
    key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return TokenSigner(AuthSettings(private_key=SecretStr(key.decode())))


class Streams:
    """Streams that stay open until `close`."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._open = ExitStack()
        # A response whose iterator is forgotten closes itself.
        self._read: list[Iterator[bytes]] = []

    def ask(self, token: str = "", path: str = "/api/chat", address: str = "127.0.0.1") -> httpx.Response:
        """The answer to one more stream; its first event was read if there is one."""
        client = self._open.enter_context(httpx.Client(transport=httpx.HTTPTransport(local_address=address)))
        headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        method = "GET" if path.startswith("/api/jobs") else "POST"
        answer = self._open.enter_context(client.stream(method, self._edge.url + path, headers=headers, timeout=30))
        if answer.is_success:
            self._read.append(answer.iter_raw())
            assert next(self._read[-1]) == FIRST_EVENT
        else:
            answer.read()
        return answer

    def close(self) -> None:
        self._open.close()


@contextmanager
def streams(edge: Edge) -> Iterator[Streams]:
    opened = Streams(edge)
    try:
        yield opened
    finally:
        opened.close()
        until(lambda: all_ended(edge))


def all_ended(edge: Edge) -> bool:
    """Whether nginx has seen that nobody reads any more: a full set of streams is accepted."""
    attempt = Streams(edge)
    try:
        return all(attempt.ask().is_success for _ in range(PER_ADDRESS))
    finally:
        attempt.close()


def a_token(signer: TokenSigner) -> str:
    """A real access token: longer than what nginx counts as a key."""
    token = signer.sign(Caller(uuid4(), uuid4(), Role.EDITOR))
    assert len(token) > 255
    return token


def test_a_token_has_so_many_streams_on_all_routes_together_and_another_token_its_own(
    edge: Edge, signer: TokenSigner
) -> None:
    token = a_token(signer)
    with streams(edge) as opened:
        paths = ("/api/chat", "/v1/chat/completions", "/api/jobs/1/events")
        assert [opened.ask(token, path).status_code for path in paths] == [200] * PER_TOKEN

        refused = opened.ask(token, "/v1/completions")
        found = problem(refused)
        assert (refused.status_code, found["code"], found["retry_after"]) == (429, "too_many_requests", 5)
        assert "streams" in found["detail"]
        assert found["error"]["type"] == "rate_limit_error"
        assert edge.line(found["request_id"])["limit"] == "streams"
        assert opened.ask(a_token(signer)).status_code == 200
    assert "255 bytes" not in edge.errors()


def test_a_short_token_is_counted_as_well(edge: Edge) -> None:
    token = f"key-{uuid4().hex}"
    with streams(edge) as opened:
        assert [opened.ask(token).status_code for _ in range(PER_TOKEN + 1)] == [200] * PER_TOKEN + [429]


def test_a_stream_that_has_ended_makes_room(edge: Edge, signer: TokenSigner) -> None:
    token = a_token(signer)
    with streams(edge) as opened:
        first = Streams(edge)
        assert first.ask(token).is_success
        assert [opened.ask(token).status_code for _ in range(PER_TOKEN)] == [200, 200, 429]

        first.close()

        until(lambda: opened.ask(token).is_success)


@pytest.mark.parametrize("fresh", [False, True], ids=["without a token", "with a fresh token each time"])
def test_an_address_has_so_many_streams_whatever_its_tokens_and_another_address_its_own(
    edge: Edge, signer: TokenSigner, *, fresh: bool
) -> None:
    with streams(edge) as opened:
        answers = [opened.ask(a_token(signer) if fresh else "") for _ in range(PER_ADDRESS + 3)]

        assert [answer.status_code for answer in answers] == [200] * PER_ADDRESS + [429] * 3
        assert opened.ask(address="127.0.0.2").status_code == 200


def test_requests_that_are_no_streams_are_not_counted_as_such(edge: Edge, signer: TokenSigner) -> None:
    token = a_token(signer)
    with streams(edge) as opened:
        for _ in range(PER_TOKEN):
            opened.ask(token)

        answer = httpx.get(f"{edge.url}/api/jobs/1", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 200


def test_an_address_that_asks_too_often_is_told_to_wait_and_others_are_served(api: str, tmp_path: Path) -> None:
    burst = 5
    with running_edge(tmp_path / "edge", api=api, requests_per_second=1, requests_burst=burst) as edge:
        answers = [httpx.get(f"{edge.url}/api/sources") for _ in range(20)]
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=other) as elsewhere:
            served = elsewhere.get(f"{edge.url}/api/sources")
        healthy = httpx.get(f"{edge.url}/nginx-health")

        assert [answer.status_code for answer in answers[: burst + 1]] == [200] * (burst + 1)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        found = problem(refused[0])
        assert (found["code"], found["retry_after"]) == ("too_many_requests", 1)
        assert edge.line(found["request_id"])["limit"] == "requests"
        assert (served.status_code, healthy.status_code) == (200, 200)


def test_guessing_passwords_is_slow_and_everything_else_is_not(api: str, tmp_path: Path) -> None:
    with running_edge(tmp_path / "edge", api=api, logins_per_minute=3) as edge:
        with httpx.Client(base_url=edge.url) as client:
            attempts = [client.post("/api/auth/login", json={}) for _ in range(8)]
            others = [client.get("/api/sources").status_code for _ in range(8)]

        assert [answer.status_code for answer in attempts[:3]] == [200] * 3
        refused = [answer for answer in attempts if answer.status_code == 429]
        assert refused
        found = problem(refused[0])
        assert (found["code"], found["retry_after"]) == ("too_many_requests", 20)
        assert "sign in" in found["detail"]
        assert edge.line(found["request_id"])["limit"] == "logins"
        assert others == [200] * 8


def test_an_upload_may_have_the_size_of_the_setting_with_its_form_and_not_a_byte_more(api: str, tmp_path: Path) -> None:
    limit, form = 3 * 1024**2, 64 * 1024
    with (
        running_edge(tmp_path / "edge", api=api, s3=api, sluice_ingest_max_upload_bytes=limit) as edge,
        httpx.Client(base_url=edge.url, timeout=60) as client,
    ):
        for method, path in (("POST", "/api/documents"), ("PUT", f"/sluice/key?X-Amz-Signature={'0' * 64}")):
            largest = client.request(method, path, content=bytes(limit + form))
            announced = client.request(method, path, content=bytes(limit + form + 1))
            unannounced = client.request(method, path, content=(bytes(1024**2) for _ in range(5)))

            assert largest.json()["size"] == limit + form
            found = problem(announced)
            assert (announced.status_code, found["code"]) == (413, "too_large")
            assert (found["limit"], found["actual"]) == (limit, limit + form + 1)
            assert (unannounced.status_code, problem(unannounced)["code"]) == (413, "too_large")
