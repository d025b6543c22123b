"""Events and WebSocket messages arrive when they are sent, not when the answer is complete."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.integration.echo_app import STREAMS
from tests.integration.nginx_edge import PROBLEM, Edge, answers, running_app, running_edge, until


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with running_app() as api, running_edge(tmp_path_factory.mktemp("streams") / "edge", api=api) as running:
        yield running


@pytest.mark.parametrize("path", sorted(STREAMS))
def test_the_first_event_arrives_while_the_answer_goes_on(edge: Edge, path: str) -> None:
    headers = {"Accept-Encoding": "gzip"}
    with httpx.stream("GET", edge.url + path, headers=headers, timeout=30) as answer:
        # The API says nothing more before the client goes: what was held back would never come.
        assert next(answer.iter_raw()) == b"event: first\ndata: {}\n\n"

        assert "content-encoding" not in answer.headers
        assert "content-length" not in answer.headers
        # For a proxy that a customer puts before ours.
        assert answer.headers["x-accel-buffering"] == "no"


def test_a_web_socket_goes_both_ways(edge: Edge) -> None:
    with connect(f"{edge.url.replace('http', 'ws')}/api/chat/ws", open_timeout=30) as socket:
        for message in ("first", "второе", "x" * 100_000):
            socket.send(message)
            assert socket.recv(timeout=30) == message

        assert socket.response is not None
        assert socket.response.headers["X-Frame-Options"] == "DENY"


def test_a_graceful_stop_refuses_what_is_new_and_lets_what_is_open_end(tmp_path: Path) -> None:
    with running_app() as api, running_edge(tmp_path / "edge", api=api) as edge:
        with connect(f"{edge.url.replace('http', 'ws')}/api/chat/ws", open_timeout=30) as socket:
            edge.process.send_signal(signal.SIGQUIT)
            until(lambda: not answers(f"{edge.url}/nginx-health"))

            socket.send("still there")
            assert socket.recv(timeout=30) == "still there"

        assert edge.process.wait(timeout=30) == 0


def test_only_the_route_for_web_sockets_becomes_one(edge: Edge) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}

    passed_on = httpx.get(f"{edge.url}/api/version", headers=upgrade).json()["headers"]
    smuggled = httpx.get(f"{edge.url}/api/chat/ws", headers={**upgrade, "Upgrade": "h2c"}).json()["headers"]

    assert {"upgrade", "connection"}.isdisjoint(name for name, _ in passed_on + smuggled)


def test_a_web_socket_is_refused_like_any_request(edge: Edge) -> None:
    (edge.modes / "maintenance").touch()
    try:
        with pytest.raises(InvalidStatus) as refused, connect(f"{edge.url.replace('http', 'ws')}/api/chat/ws"):
            pass
    finally:
        (edge.modes / "maintenance").unlink()

    answer = refused.value.response
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == PROBLEM
    assert answer.headers["Retry-After"] == "60"
