"""What clients do while the stack changes under them, and what they saw."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

_PAUSE: Final = 0.05
_CLIENTS: Final = 4


@dataclass
class Seen:
    """Requests and streams, and what went wrong with them."""

    requests: int = 0
    streams: int = 0
    failed: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, failure: str | None) -> None:
        """Count one request."""
        with self._lock:
            self.requests += 1
            if failure:
                self.failed.append(failure)

    def stream(self, failure: str | None) -> None:
        """Count one stream."""
        with self._lock:
            self.streams += 1
            if failure:
                self.cut.append(failure)


@contextmanager
def load(url: str, token: str) -> Iterator[Seen]:
    """Clients that list, search and ask until the block ends. None of them tries anything twice."""
    seen, stop = Seen(), threading.Event()
    work = [_requests] * (_CLIENTS - 1) + [_streams]
    threads = [threading.Thread(target=each, args=(url, token, seen, stop), daemon=True) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def _requests(url: str, token: str, seen: Seen, stop: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        while not stop.is_set():
            for method, path, body in (
                ("GET", "/api/sources", None),
                ("POST", "/api/search", {"question": "What is a lock?", "limit": 3}),
            ):
                try:
                    response = client.request(method, path, json=body)
                except httpx.HTTPError as error:
                    seen.request(f"{method} {path}: {type(error).__name__} {error}")
                else:
                    seen.request(None if response.is_success else f"{method} {path}: {response.status_code}")
                time.sleep(_PAUSE)


def _streams(url: str, token: str, seen: Seen, stop: threading.Event) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        while not stop.is_set():
            seen.stream(_one_answer(client))
            time.sleep(_PAUSE)


def _one_answer(client: httpx.Client) -> str | None:
    last = ""
    try:
        with client.stream("POST", "/api/chat", json={"question": "What is a lock?"}) as response:
            if not response.is_success:
                return f"chat: {response.status_code}"
            for line in response.iter_lines():
                if line.startswith("event: "):
                    last = line.removeprefix("event: ")
                if last == "error" and line.startswith("data: "):
                    return f"chat: {json.loads(line.removeprefix('data: ')).get('code')}"
    except httpx.HTTPError as error:
        return f"chat: {type(error).__name__} after {last or 'nothing'}"
    return None if last == "message.end" else f"chat: ended after {last or 'nothing'}"
