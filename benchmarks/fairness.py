"""How long a person waits from uploading ten pages until they are found: alone, and beside another tenant's backlog."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from benchmarks.report import Figure, at_most, publish
from benchmarks.subject import Tenant
from infra.embedded.platform import Platform

DOCUMENTS = 20
PAGES = 10
BACKLOG = 500
LINES_A_PAGE = 20
_SENTENCE = "On day {n} of year {mark} the harbour master counted {n} ships and wrote down their names."


def run(platform: Platform) -> None:
    """Measure, print, write."""
    person, crowd = Tenant(platform), Tenant(platform)
    person.seconds_until_found(*ten_pages())
    alone = [person.seconds_until_found(*ten_pages()) for _ in range(DOCUMENTS)]
    with ThreadPoolExecutor(4) as uploads:
        jobs = list(uploads.map(lambda file: crowd.upload_content(*file), backlog()))
    beside = []
    while len(beside) < DOCUMENTS and crowd.waiting():
        beside.append(person.seconds_until_found(*ten_pages()))
    still_waiting = crowd.waiting()
    for job in jobs:
        crowd.wait(job)
    publish(
        "fairness",
        [
            Figure("upload to found, ten pages, alone, p50", percentile(alone, 50), "s"),
            at_most("upload to found, ten pages, alone, p95", percentile(alone, 95), "s", 3),
            Figure("the same beside a backlog, p50", percentile(beside, 50), "s"),
            at_most("the same beside a backlog, p95", percentile(beside, 95), "s", 12),
        ],
        notes=f"{DOCUMENTS} documents alone, {len(beside)} beside another tenant's {BACKLOG}, "
        f"of which {still_waiting} still waited after the last",
    )


def ten_pages() -> tuple[str, IO[bytes]]:
    """A PDF that nobody has embedded yet."""
    mark = secrets.token_hex(4)
    content = io.BytesIO()
    canvas = Canvas(content, pagesize=A4)
    for page in range(PAGES):
        for line in range(LINES_A_PAGE):
            canvas.drawString(60, 780 - 35 * line, _SENTENCE.format(n=page * LINES_A_PAGE + line, mark=mark))
        canvas.showPage()
    canvas.save()
    content.seek(0)
    return f"{mark}.pdf", content


def backlog() -> Iterator[tuple[str, IO[bytes]]]:
    """Short texts, each its own."""
    for number in range(BACKLOG):
        mark = secrets.token_hex(4)
        text = " ".join(_SENTENCE.format(n=n, mark=mark) for n in range(20))
        yield f"{number}-{mark}.txt", io.BytesIO(text.encode())


def percentile(seconds: list[float], percent: int) -> float:
    """The value that so many of a hundred do not exceed."""
    return sorted(seconds)[min(len(seconds) * percent // 100, len(seconds) - 1)]
