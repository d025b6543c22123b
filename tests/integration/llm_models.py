"""LLM with a language model of random weights, as a process of its own, and clients that misbehave."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import httpx
import pytest

from sluice.testing.service_process import ServiceProcess

POLLS = 1000
POLL_SECONDS = 0.02
CONTEXT = 2048
# However slow the machine is, what waits is not dropped.
_PATIENT: Final = {"queue_seconds": 250}
TINY_SETTINGS: Final = {**_PATIENT, "context_tokens": CONTEXT, "reader_seconds": 3}
SLOW_SETTINGS: Final = {
    **_PATIENT,
    "context_tokens": 8192,
    "sequences": 2,
    "queue_requests": 4,
    "stuck_seconds": 5,
    "ping_seconds": 0.2,
}
# So little fits into the buffers between the two that some hundred pieces of an answer fill them.
_SMALL_SEGMENT = 536
_SMALL_BUFFER = 4096
# A model that is at work writes something between so many looks.
_PAUSED_POLLS = 20


class Llm:
    """A client of a running service."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service
        self.http = httpx.Client(base_url=service.url, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def ask(self, question: str = "The locks of the canal", **body: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=request(question, **body))

    def text(self, question: str = "The locks of the canal", **body: Any) -> str:
        answer = self.ask(question, **body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/stats").json()
        return found

    def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        for _ in range(POLLS):
            stats = self.stats()
            if condition(stats):
                return stats
            time.sleep(POLL_SECONDS)
        pytest.fail(f"it never came to that: {stats}")

    def until_idle(self) -> dict[str, Any]:
        return self.until(lambda s: not s["active"] and not s["waiting"] and not s["model"]["sequences_busy"])

    @contextmanager
    def connected(self, question: str, **body: Any) -> Iterator[socket.socket]:
        """A request that was sent and whose answer nobody reads; leaving closes the connection."""
        content = json.dumps(request(question, **body)).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        with socket.socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            connection.connect((self.http.base_url.host, self.http.base_url.port))
            connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
            yield connection

    def tokens_written(self) -> int:
        return int(self.stats()["model"]["tokens_written_total"])

    def until_nothing_is_written(self) -> int:
        """Wait until the model pauses; how many tokens it has written by then."""
        seen: list[int] = []

        def paused(stats: dict[str, Any]) -> bool:
            seen.append(stats["model"]["tokens_written_total"])
            return len(seen) > _PAUSED_POLLS and len(set(seen[-_PAUSED_POLLS:])) == 1

        self.until(paused)
        return seen[-1]


def request(question: str, **body: Any) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": question}], "temperature": 0, **body}


def chunks(stream: str) -> list[Any]:
    contents = re.findall(r"^data: (.+)$", stream, flags=re.MULTILINE)
    return [content if content == "[DONE]" else json.loads(content) for content in contents]


def streamed_text(stream: str) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks(stream)[:-1] for choice in chunk["choices"])
