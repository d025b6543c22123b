"""One run of the smoke suite against one platform: what it was given, and what it has left there so far."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from services.cli.client import Client, Refused
from services.cli.exit_codes import CommandError, Exit
from services.cli.smoke.fact import Fact

Json = dict[str, Any]


@dataclass(frozen=True)
class Upload:
    """A document that the suite has uploaded, and the job that reads it."""

    document_id: str
    job_id: str


@dataclass
class Visit:
    """What the checks share: each leaves here what later ones, and the cleaning up, need."""

    client: Client
    email: str
    password: str
    # Seconds: for a platform that is still coming up, and for each check.
    wait: float = 0
    patience: float = 120
    fact: Fact = field(default_factory=Fact.invented)
    source_name: str = field(default_factory=lambda: f"smoke-{secrets.token_hex(4)}")
    signed_in: bool = False
    source_id: str | None = None
    conversation_id: str | None = None
    uploads: list[Upload] = field(default_factory=list)
    # Of the second upload, once it was told to stop.
    stopped: str | None = None
    # Something was to be made, and the answer never came: it may exist all the same, or be about to.
    unanswered: bool = False

    def make(self, path: str, **content: Any) -> Json:
        """What the server answers when something is to be made."""
        self.unanswered = True
        try:
            made: Json = self.client.call("POST", path, **content)
        except Refused:
            self.unanswered = False
            raise
        self.unanswered = False
        return made

    def upload(self, name: str, text: str) -> Json:
        """What the server answers to a text file."""
        file = (name, text.encode())
        answer = self.make("/api/documents", data={"source_id": self.source_id}, files={"file": file})
        found = Upload(answer["document_id"], answer["job_id"])
        if found not in self.uploads:
            self.uploads.append(found)
        return answer

    def search(self, question: str) -> tuple[Json, Json | None]:
        """What a search in our source answers, and the best passage of our first document in it."""
        found: Json = self.client.call(
            "POST", "/api/search", json={"question": question, "source_ids": [self.source_id]}
        )
        ours = (each for each in found["passages"] if each["document_id"] == self.uploads[0].document_id)
        return found, next(ours, None)

    def ended(self, upload: Upload) -> Json:
        """The last event of the job, watched on one stream until it has ended."""
        seen: Json = {}
        try:
            for name, seen in self.client.events("GET", f"/api/jobs/{upload.job_id}/events", within=self.patience):
                if name == "job.end":
                    return seen
        except CommandError as error:
            if error.status is Exit.TIMED_OUT and seen:
                raise failure(f"After {self.patience:.0f} s the job is still {_standing(seen)}.") from error
            raise
        raise failure("The stream of the job ended before the job did. Does a proxy cut streams short?")

    def ready(self, upload: Upload) -> Json:
        """The last event of a job that must end well."""
        last = self.ended(upload)
        if last["state"] != "ready":
            raise failure(f"The job is {_standing(last)}.")
        return last


def failure(sentence: str) -> CommandError:
    """What a check raises when the platform answers, but not what it should."""
    return CommandError(sentence, Exit.FAILED)


def _standing(job: Json) -> str:
    where = f"{job['state']} at {job['step']}" if job["step"] else str(job["state"])
    return f"{where}: {job['error']['detail']} [{job['error']['code']}]" if job["error"] else where
