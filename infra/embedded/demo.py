"""The main job on real documents: `python -m infra.embedded.demo`, after `up`.

Uploads `samples/`, waits until they are ready, asks in English and in Russian, and checks that the page that each
citation names contains the cited sentence. Exit status 0 only if all of that worked.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from pathlib import Path
from typing import Any, Final

import httpx
import pypdfium2

from services.cli import account
from services.cli.account import Account
from services.cli.answers import ask, print_answer
from services.cli.client import Client
from services.cli.exit_codes import CommandError
from services.cli.output import say
from services.cli.uploads import upload_all

SAMPLES: Final = Path(__file__).parents[2] / "samples"
_SOURCES: Final = {
    "Debian FAQ": ("*.pdf",),
    "Debian FAQ, chapters in other formats": ("*kernel*.html", "*kernel*.md", "*.docx", "*.pptx", "*.xlsx"),
}
_QUESTIONS: Final = (
    "What is a virtual package?",
    "Что такое Debian GNU/Linux?",
)


class DemoFailure(Exception):
    """The demo found something that does not work."""


def main() -> int:
    """Run the demo; 1 with a sentence where something did not work."""
    started = time.monotonic()
    try:
        here = _platform()
        with Client(Account(here.url, "")) as stranger:
            token = stranger.sign_in(here.email, here.password)["access_token"]
        with Client(Account(here.url, token)) as client:
            source_ids = [_fill(client, name, patterns) for name, patterns in _SOURCES.items()]
            for question in _QUESTIONS:
                _ask(client, question, source_ids[0])
    except (CommandError, DemoFailure) as error:
        say(f"error: {error}")
        return 1
    say(f"\nAll of it worked, in {time.monotonic() - started:.0f} s. The platform stays up: {here.url}")
    say("API pages: /docs    Next: .venv/bin/sluice login, then sluice ask 'your question'    Stop it: make down")
    return 0


def _platform() -> account.EmbeddedPlatform:
    here = account.embedded()
    if here is None:
        raise DemoFailure("The platform of this folder was never started: make up")
    return here


def _fill(client: Client, name: str, patterns: tuple[str, ...]) -> str:
    files = sorted(file for pattern in patterns for file in SAMPLES.glob(pattern))
    say(f"\nUploading {len(files)} documents to {name!r}")
    source_id = client.source_named(name, create=True)
    for outcome in upload_all(client, files, source_id, ["sample"], wait=True):
        if outcome.state != "ready":
            raise DemoFailure(f"{outcome.path} is {outcome.state}: {outcome.error}")
    return source_id


def _ask(client: Client, question: str, source_id: str) -> None:
    say(f"\nQ: {question}")
    answer = print_answer(ask(client, question, [source_id]))
    if not answer.citations:
        raise DemoFailure(f"The answer cites nothing: {answer.text!r}")
    for citation in answer.citations:
        _check(client, citation)
    say(f"  ✓ {len(answer.citations)} cited sentences found on the pages they are cited from")


def _check(client: Client, citation: dict[str, Any]) -> None:
    place = citation["place"]
    link = client.call("GET", f"/api/documents/{place['document_id']}/original")
    content = httpx.get(link["url"], timeout=60).raise_for_status().content
    with pypdfium2.PdfDocument(content) as document:
        page = document[place["page"] - 1].get_textpage().get_text_bounded()
    if _letters(citation["quote"]) not in _letters(page):
        raise DemoFailure(f"Page {place['page']} of {place['document_name']} does not contain: {citation['quote']!r}")


def _letters(text: str) -> str:
    """The letters and digits alone: lines, hyphens at their ends and typographic forms do not count."""
    return "".join(character for character in unicodedata.normalize("NFKC", text) if character.isalnum())


if __name__ == "__main__":
    sys.exit(main())
