"""LLM with a language model of random weights, as a process of its own, and clients that misbehave."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx
import pytest

from sluice.testing.service_process import ServiceProcess

POLLS = 1000
POLL_SECONDS = 0.02


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
        url = self.http.base_url
        content = json.dumps(request(question, **body)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        with socket.create_connection((url.host, url.port or 80)) as connection:
            connection.sendall(head + content)
            yield connection


def request(question: str, **body: Any) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": question}], "temperature": 0, **body}


def chunks(stream: str) -> list[Any]:
    contents = re.findall(r"^data: (.+)$", stream, flags=re.MULTILINE)
    return [content if content == "[DONE]" else json.loads(content) for content in contents]


def streamed_text(stream: str) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks(stream)[:-1] for choice in chunk["choices"])
