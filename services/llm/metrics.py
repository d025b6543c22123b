"""LLM's metrics, all named llm_*."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class _BackendFigures(Collector):
    """Figures that are read when somebody asks."""

    def __init__(self, figures: Callable[[], dict[str, float]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for name, value in self._figures().items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(f"llm_model_{name}", name.replace("_", " ").capitalize(), value=value)


class LlmMetrics:
    """Counters of one LLM process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("llm_requests_total", "Requests", ["endpoint", "status"], registry=registry)
        self.duration = Histogram(
            "llm_request_duration_seconds", "Time to answer", ["endpoint"], buckets=_SECONDS, registry=registry
        )
        self.tokens = Counter("llm_tokens_total", "Tokens read and written", ["kind"], registry=registry)
        self.waiting = Gauge("llm_requests_waiting", "Requests that wait for a slot", registry=registry)
        self.active = Gauge("llm_requests_active", "Answers being written", registry=registry)
        self.queue_wait = Histogram(
            "llm_queue_wait_seconds", "Wait of a request for a slot", buckets=_SECONDS, registry=registry
        )
        self.first_piece = Histogram(
            "llm_ttft_seconds", "Time from slot to first text", buckets=_SECONDS, registry=registry
        )
        self.abandoned = Counter("llm_abandoned_total", "Answers whose reader left or stalled", registry=registry)

    def watch_backend(self, figures: Callable[[], dict[str, float]]) -> None:
        """Show the figures that the backend keeps, as `llm_model_*`."""
        self.registry.register(_BackendFigures(figures))

    def record_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self.requests.labels(endpoint, status).inc()
        self.duration.labels(endpoint).observe(seconds)
