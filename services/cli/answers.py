"""Printing an answer while it is written, and its citations after it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import out, say, show_json_line


@dataclass
class Answer:
    """What was answered."""

    text: str = ""
    finish_reason: str = ""
    citations: list[dict[str, Any]] = field(default_factory=list)

    def take(self, name: str, data: dict[str, Any]) -> None:
        """Learn from an event; `CommandError` when it says that the answer could not go on."""
        match name:
            case "text.delta":
                self.text += data["text"]
            case "citation":
                self.citations.append(data)
            case "message.end":
                self.finish_reason = data["finish_reason"]
            case "error":
                raise CommandError(f"{data['detail']} [{data['code']}]", Exit.SERVER_ERROR)


def ask(
    client: Client, question: str, source_ids: list[str], *, within: float = math.inf
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of an answer; all of them `within` so many seconds."""
    return client.events("POST", "/api/chat", within=within, json={"question": question, "source_ids": source_ids})


def print_events(events: Iterator[tuple[str, dict[str, Any]]]) -> Answer:
    """Print each event as a line of JSON."""
    answer = Answer()
    for name, data in events:
        show_json_line({"event": name, **data})
        answer.take(name, data)
    return answer


def print_answer(events: Iterator[tuple[str, dict[str, Any]]]) -> Answer:
    """Print the answer as it comes, then where each cited sentence stands."""
    answer = Answer()
    for name, data in events:
        answer.take(name, data)
        if name == "text.delta":
            sys.stdout.write(data["text"])
            sys.stdout.flush()
        elif name == "retrieval.empty":
            say(data["detail"])
        elif name == "retrieval.result" and data["degraded"]:
            say(f"Without {', '.join(data['degraded'])} just now: the passages may be worse than usual.")
    if answer.text:
        sys.stdout.write("\n")
    for citation in answer.citations:
        out.print(citation_line(citation), markup=False)
    return answer


def citation_line(citation: dict[str, Any]) -> str:
    """Where a cited sentence stands: number, document and page."""
    place = citation["place"]
    page = f", page {place['page']}" if place["page"] else ""
    return f"  [{citation['number']}] {place['document_name']}{page}: {citation['quote']}"
