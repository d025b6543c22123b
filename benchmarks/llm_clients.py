"""Clients of a chat service, each in a thread of its own, and when each piece of an answer came."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx


@dataclass
class Timed:
    """When an answer was asked for and when its pieces came, in seconds of one clock."""

    asked: float
    pieces: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.pieces[0] - self.asked

    @property
    def pauses(self) -> list[float]:
        """Seconds between tokens."""
        return [after - before for before, after in zip(self.pieces, self.pieces[1:], strict=False)]


def ask(url: str, model: str, prompt: str, tokens: int, *, on_piece: Callable[[], object] = lambda: None) -> Timed:
    """Stream a completion of so many tokens."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    timed = Timed(time.perf_counter())
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=300) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data: {") and '"finish_reason":null' in line.replace(": ", ":"):
                timed.pieces.append(time.perf_counter())
                on_piece()
    return timed


def together(url: str, model: str, prompts: Sequence[str], tokens: int) -> tuple[list[Timed], float]:
    """All prompts at once, and the tokens a second of all of them."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as clients:
        found = list(clients.map(lambda prompt: ask(url, model, prompt, tokens), prompts))
    return found, len(prompts) * tokens / (time.perf_counter() - began)


def percentile(values: Sequence[float], percent: int) -> float:
    """So many percent of the values are not above it."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
