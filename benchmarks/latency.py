"""How long a person waits when nothing else is going on."""

from __future__ import annotations

import statistics

from benchmarks.report import Figure, at_most, publish
from benchmarks.subject import SAMPLES, Tenant
from infra.embedded.platform import Platform

ROUNDS = 30
QUESTIONS = ("What is a virtual package?", "Как обновить систему?", "Which kernel does Debian use?")


def run(platform: Platform) -> None:
    """Measure, print, write."""
    tenant = Tenant(platform)
    tenant.ingest([SAMPLES / "debian-faq.kernel.en.html", SAMPLES / "debian-faq.kernel.ru.html"])
    first_events, first_words, searches = [], [], []
    for number in range(ROUNDS):
        question = QUESTIONS[number % len(QUESTIONS)]
        moments = dict(reversed(list(tenant.ask(question))))
        first_events.append(moments["message.start"])
        first_words.append(moments.get("text.delta", moments["message.end"]))
        searches.append(tenant.search(question))
    publish(
        "latency",
        [
            at_most("first SSE event, p50", statistics.median(first_events), "ms", 300),
            at_most("first SSE event, p95", _p95(first_events), "ms", 300),
            Figure("first word of the answer, p50", statistics.median(first_words), "ms"),
            Figure("first word of the answer, p95", _p95(first_words), "ms"),
            Figure("search, p50", statistics.median(searches), "ms"),
            Figure("search, p95", _p95(searches), "ms"),
        ],
        notes=f"{ROUNDS} questions one after the other, platform idle",
    )


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]
