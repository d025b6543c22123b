"""What the tests know of the running platform: where it is, how it is set, its stores and its people."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sluice.db.session import Sessions
from sluice.db.unscoped import UnscopedSessions
from sluice.identity.roles import Role
from sluice.object_store import S3ObjectStore
from sluice.settings import ObjectStoreSettings
from sluice.vector_index import VectorIndex
from tests.e2e.api import Api

ROOT: Final = Path(__file__).parents[2]
# Of its own, whatever SLUICE_HOME says: it is emptied at the start.
HOME: Final = Path(os.environ.get("SLUICE_TEST_HOME", ROOT / ".sluice-test"))
PASSWORD: Final = "correct horse battery staple"
MEGABYTE: Final = 1024**2

# Short times, so that a fault is over soon; small limits, so that hostile files can be small too.
SETTINGS: Final = {
    "SLUICE_JOBS_LEASE_SECONDS": "6",
    "SLUICE_JOBS_HEARTBEAT_SECONDS": "2",
    "SLUICE_JOBS_SWEEP_SECONDS": "1",
    "SLUICE_JOBS_BACKOFF_SECONDS": "0.5",
    "SLUICE_JOBS_BACKOFF_MAX_SECONDS": "2",
    "SLUICE_JOBS_DISPATCH_TIMEOUT_SECONDS": "8",
    "SLUICE_INGEST_MAX_UPLOAD_BYTES": str(8 * MEGABYTE),
    "SLUICE_INGEST_MAX_UNPACKED_BYTES": str(64 * MEGABYTE),
    "SLUICE_INGEST_PARSE_TIMEOUT_SECONDS": "60",
    # Many small batches: a fault has a gap to strike in.
    "SLUICE_INGEST_EMBED_BATCH_TOKENS": "1024",
    "SLUICE_MODELS_FOLDER": str(HOME / "models"),
    "SLUICE_AUTH_LOGIN_LIMIT": "1000/minute",
    "SLUICE_AUTH_TOKEN_MINUTES": "120",
    # All tests come from one address.
    "SLUICE_NGINX_REQUESTS_PER_SECOND": "10000",
    "SLUICE_NGINX_REQUESTS_BURST": "10000",
    "SLUICE_NGINX_LOGINS_PER_MINUTE": "10000",
    "SLUICE_NGINX_STREAMS_PER_TOKEN": "200",
    "SLUICE_NGINX_STREAMS_PER_ADDRESS": "1000",
}


@dataclass(frozen=True)
class Stores:
    """The platform's stores, seen from behind the API."""

    sessions: Sessions
    unscoped: UnscopedSessions
    objects: S3ObjectStore
    index: VectorIndex


@dataclass(frozen=True)
class Member:
    """A person of a tenant, signed in."""

    user_id: UUID
    tenant_id: UUID
    email: str
    api: Api


Join = Callable[[str, Role], Member]
Count = Callable[[], int]


def object_store_settings(variables: dict[str, str]) -> ObjectStoreSettings:
    return ObjectStoreSettings(
        endpoint=variables["SLUICE_S3_ENDPOINT"],
        access_key=variables["SLUICE_S3_ACCESS_KEY"],
        secret_key=variables["SLUICE_S3_SECRET_KEY"],
        bucket=variables["SLUICE_S3_BUCKET"],
    )


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
