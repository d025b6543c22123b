"""EMB's metrics, all named emb_*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class EmbMetrics:
    """Counters of one EMB process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("emb_requests_total", "Requests", ["endpoint", "status"], registry=registry)
        self.duration = Histogram(
            "emb_request_duration_seconds", "Time to answer", ["endpoint"], buckets=_SECONDS, registry=registry
        )
        self.tokens = Counter("emb_tokens_total", "Tokens of answered requests", ["input_type"], registry=registry)
        self.queued_tokens = Gauge("emb_queued_tokens", "Tokens accepted and not yet answered", registry=registry)
        self.queue_wait = Histogram(
            "emb_queue_wait_seconds", "Wait of a request for its first batch", buckets=_SECONDS, registry=registry
        )
        self._batch_seconds = Histogram(
            "emb_batch_duration_seconds", "Time of one forward pass", buckets=_SECONDS, registry=registry
        )
        self._batch_texts = Histogram(
            "emb_batch_texts", "Texts in one forward pass", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self._batch_tokens = Counter("emb_batch_tokens_total", "Tokens sent through the model", registry=registry)
        self._padding = Counter("emb_padding_tokens_total", "Padding sent through the model", registry=registry)

        self._models = Info("emb_model", "The model behind an alias", ["alias"], registry=registry)

    def show_models(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell which models are loaded: their facts by alias."""
        self._models.clear()
        for alias, facts in models.items():
            shown = ("model", "version", "backend", "form")
            self._models.labels(alias).info({name: str(facts[name]) for name in shown})

    def record_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests.labels(endpoint, status).inc()
        self.duration.labels(endpoint).observe(seconds)

    def record_batch(self, texts: int, *, tokens: int, padded: int, seconds: float) -> None:
        """Count a forward pass."""
        self._batch_texts.observe(texts)
        self._batch_seconds.observe(seconds)
        self._batch_tokens.inc(tokens)
        self._padding.inc(padded - tokens)
