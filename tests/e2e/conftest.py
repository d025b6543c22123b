"""What end-to-end tests read off the platform's own counters."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

Count = Callable[[], int]


def counted(url: str, sample: str, **labels: str) -> int:
    """The sum of a counter's samples with these labels, from the metrics of a service."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text)
    return int(
        sum(
            found.value
            for family in families
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )
    )


@pytest.fixture(scope="session")
def embedded_texts(variables: dict[str, str]) -> Count:
    """How many texts EMB's model has read so far."""
    return lambda: counted(variables["SLUICE_EMB_URL"], "emb_batch_texts_sum")


@pytest.fixture(scope="session")
def asked_of_the_model(variables: dict[str, str]) -> Count:
    """How many requests LLM has answered so far."""
    return lambda: counted(variables["SLUICE_LLM_URL"], "llm_requests_total", endpoint="/v1/chat/completions")
