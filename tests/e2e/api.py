"""The HTTP API as one signed-in person uses it. Every wait ends."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self
from uuid import UUID, uuid4

import httpx
from httpx_sse import EventSource, connect_sse

FINISHED: Final = frozenset({"ready", "failed", "canceled"})
_LOOK_SECONDS: Final = 0.05

Json = dict[str, Any]


@dataclass(frozen=True)
class SentEvent:
    """A server-sent event, its data parsed."""

    name: str
    id: str
    data: Json


@dataclass(frozen=True)
class Answer:
    """All that a stream of `/api/chat` said."""

    events: list[SentEvent]

    def names(self) -> list[str]:
        """The events' names, in order, each run of the same name once."""
        names = [event.name for event in self.events]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def all(self, name: str) -> list[Json]:
        """The data of every event of this name."""
        return [event.data for event in self.events if event.name == name]

    def the(self, name: str) -> Json:
        """The data of the only event of this name."""
        (data,) = self.all(name)
        return data

    @property
    def text(self) -> str:
        """The answer as it was streamed."""
        return "".join(delta["text"] for delta in self.all("text.delta"))


class Api:
    """What one person can do over HTTP."""

    def __init__(self, url: str, login: Json) -> None:
        self.user_id, self.tenant_id = UUID(login["user_id"]), UUID(login["tenant_id"])
        self.token: str = login["access_token"]
        self.http = httpx.Client(
            base_url=url, timeout=httpx.Timeout(60), headers={"Authorization": f"Bearer {self.token}"}
        )

    @classmethod
    @contextmanager
    def signed_in(cls, url: str, email: str, password: str) -> Iterator[Self]:
        """The API as the person with this address and password uses it."""
        login = httpx.post(f"{url}/api/auth/login", json={"email": email, "password": password}, timeout=30)
        api = cls(url, login.raise_for_status().json())
        with api.http:
            yield api

    def get(self, path: str, **parameters: Any) -> Json:
        """What is there; raises when it is not."""
        return self.http.get(path, params=parameters).raise_for_status().json()  # type: ignore[no-any-return] # JSON

    def new_source(self) -> str:
        """The id of a source that nobody else has."""
        made = self.http.post("/api/sources", json={"name": f"Source {uuid4().hex}"}).raise_for_status()
        return str(made.json()["id"])

    def upload(self, source_id: str, name: str, content: bytes, **fields: Any) -> httpx.Response:
        """The answer to an upload, whatever it is."""
        return self.http.post(
            "/api/documents", data={"source_id": source_id, **fields}, files={"file": (name, content)}
        )

    def accepted(self, source_id: str, name: str, content: bytes, **fields: Any) -> Json:
        """An upload that must be taken: its document and its job."""
        response = self.upload(source_id, name, content, **fields)
        assert response.status_code == httpx.codes.ACCEPTED, response.text
        return response.json()  # type: ignore[no-any-return] # JSON

    def ended(self, source_id: str, name: str, content: bytes, **fields: Any) -> Json:
        """The job of an upload, once it has ended one way or the other."""
        return self.wait(self.accepted(source_id, name, content, **fields)["job_id"])

    def ingested(self, source_id: str, name: str, content: bytes, **fields: Any) -> Json:
        """The document that an upload led to, once it is ready."""
        job = self.ended(source_id, name, content, **fields)
        assert job["state"] == "ready", job
        return self.document(job["document_id"])

    def promised(self, source_id: str, name: str, content: bytes, **announced: Any) -> Json:
        """The promise of a presigned upload of this content; `announced` says otherwise of it."""
        digest = hashlib.sha256(content).hexdigest()
        body = {"source_id": source_id, "name": name, "size": len(content), "content_hash": digest, **announced}
        return self.http.post("/api/uploads", json=body).raise_for_status().json()  # type: ignore[no-any-return] # JSON

    def document(self, document_id: str) -> Json:
        """The document as it is now."""
        return self.get(f"/api/documents/{document_id}")

    def job(self, job_id: str) -> Json:
        """The job as it is now, with its steps."""
        return self.get(f"/api/jobs/{job_id}")

    def wait(self, job_id: str, seconds: float = 90) -> Json:
        """The job, once it has ended."""
        return self.wait_for(job_id, lambda job: job["state"] in FINISHED, seconds)

    def wait_for(self, job_id: str, condition: Callable[[Json], bool], seconds: float = 90) -> Json:
        """The job, once the condition holds. While a store is away, the API may say so; that is no end."""
        deadline = time.monotonic() + seconds
        while True:
            response = self.http.get(f"/api/jobs/{job_id}")
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE and condition(job := response.json()):
                return job  # type: ignore[no-any-return] # JSON
            assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s: {response.text}"
            time.sleep(_LOOK_SECONDS)

    def watch(self, job_id: str, last_event_id: str | None = None) -> list[SentEvent]:
        """Every event of the job until its end."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        with connect_sse(self.http, "GET", f"/api/jobs/{job_id}/events", headers=headers) as stream:
            stream.response.raise_for_status()
            return _parsed(stream)

    def search(self, source_id: str, question: str, **more: Any) -> Json:
        """What a search in this source answers."""
        body = {"question": question, "source_ids": [source_id], **more}
        return self.http.post("/api/search", json=body).raise_for_status().json()  # type: ignore[no-any-return] # JSON

    def found(self, source_id: str, question: str, **more: Any) -> list[str]:
        """The texts of the passages that a search in this source finds, best first."""
        return [passage["text"] for passage in self.search(source_id, question, **more)["passages"]]

    def ask(self, source_id: str, question: str, **more: Any) -> Answer:
        """The whole answer to a question about this source."""
        return self._answer({"question": question, "source_ids": [source_id], **more})

    def ask_anywhere(self, question: str) -> Answer:
        """The whole answer to a question about all that the tenant has."""
        return self._answer({"question": question})

    def every_id(self, path: str) -> set[str]:
        """The ids of all items of a list, over all its pages."""
        page = self.get(path, limit=100)
        found = {item["id"] for item in page["data"]}
        while page["has_more"]:
            page = self.get(path, limit=100, cursor=page["next_cursor"])
            found |= {item["id"] for item in page["data"]}
        return found

    def original(self, document_id: str) -> bytes:
        """The bytes that were uploaded, by presigned URL."""
        link = self.get(f"/api/documents/{document_id}/original")
        return httpx.get(link["url"], timeout=30).raise_for_status().content

    def _answer(self, body: Json) -> Answer:
        with connect_sse(self.http, "POST", "/api/chat", json=body) as stream:
            stream.response.raise_for_status()
            return Answer(_parsed(stream))


def _parsed(stream: EventSource) -> list[SentEvent]:
    # The heartbeat of a quiet stream is a comment, which arrives here as an event without data.
    return [SentEvent(event.event, event.id, json.loads(event.data)) for event in stream.iter_sse() if event.data]
