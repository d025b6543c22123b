"""A model that a service serves is not deleted, whatever the manifest says of it."""

from __future__ import annotations

import pytest

from services.api.routes.admin_models import require_not_served
from sluice.errors import Conflict
from sluice.model_store.manifest import ModelEntry, ModelType
from sluice.served_models import ServedModel, ServiceState


def entry(version: str, kind: ModelType = "embed") -> ModelEntry:
    return ModelEntry(
        name="minilm", version=version, type=kind, path="minilm", size=1, sha256="0" * 64, backend="x", dimension=3
    )


def test_only_what_is_served_is_kept() -> None:
    services = [
        ServiceState("embed", "http://emb:8000", "ready", [ServedModel("fast", "minilm@1", "openvino")]),
        ServiceState("llm", "http://llm:8000", "away"),
    ]

    with pytest.raises(Conflict, match=r"minilm@1 answers at http://emb:8000\. Activate another model first"):
        require_not_served(services, entry("1"))
    require_not_served(services, entry("2"))
    require_not_served(services, entry("1", "llm"))
