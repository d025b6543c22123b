"""The laboratory: a platform of its own that may be broken, its stores, and customers who upload meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import httpx
import psycopg

from infra.embedded.home import Home
from infra.embedded.platform import Platform
from sluice import kill_points
from sluice.db.session import create_sessions
from sluice.db.unscoped import create_unscoped_sessions
from sluice.identity.first_admin import ensure_administrator
from sluice.object_store import S3ObjectStore
from sluice.retrieval.lexical import TOKENIZER_VERSION
from sluice.settings import DatabaseSettings, VectorIndexSettings
from sluice.vector_index import VectorIndex
from tests.chaos import texts
from tests.chaos.broker import Broker
from tests.chaos.database import Database
from tests.chaos.results import CI
from tests.chaos.texts import CalmReader
from tests.chaos.verify import Point
from tests.chaos.workers import Companion
from tests.e2e.api import Api
from tests.e2e.running import PASSWORD, ROOT, SETTINGS, Stores, object_store_settings

T = TypeVar("T")
LEASE_SECONDS: Final = 6
MAX_ATTEMPTS: Final = 12
# Longer than any lease, sweep and back-off together, even on a busy machine.
PATIENCE_SECONDS: Final = 240
_AT_ONCE: Final = 4
_PAGE: Final = 1000


@dataclass(frozen=True)
class Upload:
    """An upload that was answered with 202."""

    name: str
    content: bytes
    document_id: UUID
    job_id: UUID


@dataclass
class Customer:
    """A tenant with one source, and all that it has uploaded."""

    api: Api
    source_id: str
    uploads: list[Upload] = field(default_factory=list)

    @property
    def tenant_id(self) -> UUID:
        """Whose rows these are."""
        return self.api.tenant_id

    def upload(self, content: bytes | None = None) -> Upload:
        """Upload a text, by default a short one; it must be accepted."""
        content = texts.short() if content is None else content
        name = f"{uuid4().hex}.txt"
        accepted = self.api.accepted(self.source_id, name, content)
        made = Upload(name, content, UUID(accepted["document_id"]), UUID(accepted["job_id"]))
        self.uploads.append(made)
        return made

    def upload_many(self, number: int) -> list[Upload]:
        """Upload this many short texts, a few at once."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda _: self.upload(), range(number)))


class Lab:
    """Everything an experiment works with."""

    def __init__(self, platform: Platform, home: Home, profile: str) -> None:
        self.platform = platform
        self.profile = profile
        self.variables = platform.environment()
        self.api_url = f"http://{self.variables['SLUICE_API_HOST']}:{self.variables['SLUICE_API_PORT']}"
        self.broker = Broker(home, self.variables["SLUICE_BROKER_URL"])
        self.database = Database(platform, home)
        self.calm_reader = CalmReader(self.variables)
        self.kill_points = Path(self.variables["SLUICE_KILL_POINTS"])
        self._home = home
        self._clients = ExitStack()

    def choose(self, *, ci: T, long: T) -> T:
        """The size of something in this profile."""
        return ci if self.profile == CI else long

    def customer(self) -> Customer:
        """A new tenant, its administrator signed in, with one empty source."""
        name = f"chaos-{uuid4().hex[:12]}"
        email = f"{name}@example.org"
        ensure_administrator(self.stores.unscoped, tenant=name, email=email, password=PASSWORD)
        api = self._clients.enter_context(Api.signed_in(self.api_url, email, PASSWORD))
        return Customer(api, api.new_source())

    def companion(self, name: str, module: str) -> Companion:
        """A process beside the platform's own parts, not started yet."""
        return Companion(name, module, self._home.path, ROOT, self.variables)

    def settle(self, customer: Customer, seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until nothing of the customer's is under way any more, or in vain; seconds until its jobs had ended.

        In vain means that the oracle will say what is stuck.
        """
        began = time.monotonic()
        ended = began
        while time.monotonic() < began + seconds:
            try:
                jobs, rest = self._under_way(customer.tenant_id)
            except (psycopg.OperationalError, OSError):
                jobs = rest = 1
            if jobs:
                ended = time.monotonic()
            elif not rest:
                break
            time.sleep(0.1)
        return ended - began

    def ready(self, customer: Customer) -> int:
        """How many of the customer's jobs are ready."""
        query = "SELECT count(*) FROM jobs WHERE tenant_id = %(tenant)s AND state = 'ready'"
        return int(self.database.value(query, tenant=customer.tenant_id))

    def unpublished(self, customer: Customer) -> int:
        """How many of the customer's messages the broker does not have yet."""
        query = "SELECT count(*) FROM outbox WHERE tenant_id = %(tenant)s AND published_at IS NULL"
        return int(self.database.value(query, tenant=customer.tenant_id))

    def attempts(self, customer: Customer) -> Sequence[Any]:
        """The attempts of the customer's steps, in the order of their beginning, each with its step's job."""
        return self.database.records(
            "SELECT a.*, s.job_id, s.step FROM job_attempts a JOIN job_steps s ON s.id = a.step_id "
            "WHERE a.tenant_id = %(tenant)s ORDER BY a.started_at",
            tenant=customer.tenant_id,
        )

    def blamed_attempts(self, customer: Customer) -> int:
        """How many attempts were counted against documents: those that ended and were not given back."""
        return int(
            self.database.value(
                "SELECT coalesce(sum(%(most)s - (max_attempts - attempt) - 1), 0) FROM job_steps "
                "WHERE tenant_id = %(tenant)s AND attempt > 0",
                tenant=customer.tenant_id,
                most=MAX_ATTEMPTS,
            )
        )

    def points(self, tenant_id: UUID) -> dict[str, list[Point]]:
        """Every point of a tenant, by collection, as the vector store's own interface tells."""
        with httpx.Client(base_url=self.variables["SLUICE_QDRANT_URL"], timeout=30) as store:
            names = [
                one["name"] for one in store.get("/collections").raise_for_status().json()["result"]["collections"]
            ]
            return {name: list(_scroll(store, name, tenant_id)) for name in names}

    def crashes(self) -> Counter[str]:
        """How often each part has ended by itself so far: not by a signal, and not because it was told to."""
        log = self._home.log("supervisord").read_text(errors="replace")
        return Counter(re.findall(r"exited: (\w+) \(exit status \d+; not expected\)", log))

    def close(self) -> None:
        """Let go of what the experiments used."""
        self._clients.close()
        for factory in (self.stores.sessions, self.stores.unscoped):
            factory.kw["bind"].dispose()

    @cached_property
    def stores(self) -> Stores:
        """The stores, as the product's own code uses them."""
        database = DatabaseSettings(
            url=self.variables["SLUICE_DATABASE_URL"], system_url=self.variables["SLUICE_DATABASE_SYSTEM_URL"]
        )
        return Stores(
            sessions=create_sessions(database),
            unscoped=create_unscoped_sessions(database),
            objects=S3ObjectStore(object_store_settings(self.variables)),
            index=VectorIndex(VectorIndexSettings(url=self.variables["SLUICE_QDRANT_URL"]), TOKENIZER_VERSION),
        )

    def _under_way(self, tenant_id: UUID) -> tuple[int, int]:
        """How many jobs live, and how much else is not at rest."""
        ((jobs, rows),) = self.database.rows(
            "SELECT (SELECT count(*) FROM jobs WHERE tenant_id = %(t)s AND state IN ('queued', 'running')), "
            "(SELECT count(*) FROM job_steps WHERE tenant_id = %(t)s AND state IN ('queued', 'running')) + "
            "(SELECT count(*) FROM outbox WHERE tenant_id = %(t)s AND published_at IS NULL) + "
            "(SELECT count(*) FROM job_attempts WHERE tenant_id = %(t)s AND ended_at IS NULL)",
            t=tenant_id,
        )
        return jobs, rows + sum(abs(number) for number in self.broker.waiting().values())


@contextmanager
def running_lab(profile: str) -> Iterator[Lab]:
    """A laboratory on a fresh platform, taken down afterwards."""
    home = Home(Path(os.environ.get("SLUICE_CHAOS_HOME", ROOT / ".sluice-chaos")).resolve(), ROOT)
    points = home.path / "kill-points"
    with _environment({**SETTINGS, **_settings(points)}):
        # What an earlier run left must not look like this one's.
        Platform(home.path, home.root).down()
        shutil.rmtree(home.path)
        platform = Platform(home.path, home.root, report=print)
        platform.up()
        lab = Lab(platform, home, profile)
        points.mkdir(exist_ok=True)
        kill_points.disarm(points)
        try:
            yield lab
        finally:
            lab.close()
            platform.down()


def _settings(points: Path) -> dict[str, str]:
    return {
        "SLUICE_ENVIRONMENT": "test",
        "SLUICE_KILL_POINTS": str(points),
        "SLUICE_JOBS_LEASE_SECONDS": str(LEASE_SECONDS),
        "SLUICE_JOBS_MAX_ATTEMPTS": str(MAX_ATTEMPTS),
    }


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """With these `SLUICE_*` variables and no others: what the caller has set would win over the platform's own."""
    before = {name: value for name, value in os.environ.items() if name.startswith("SLUICE_")}
    for name in before:
        del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
        os.environ.update(before)


def _scroll(store: httpx.Client, collection: str, tenant_id: UUID) -> Iterator[Point]:
    body: dict[str, Any] = {
        "filter": {"must": [{"key": "tenant", "match": {"any": [str(tenant_id)]}}]},
        "with_payload": True,
        "limit": _PAGE,
    }
    while True:
        page = store.post(f"/collections/{collection}/points/scroll", json=body).raise_for_status().json()["result"]
        for point in page["points"]:
            payload = point["payload"]
            yield Point(str(point["id"]), UUID(payload["chunk_id"]), UUID(payload["document_id"]))
        if page["next_page_offset"] is None:
            return
        body["offset"] = page["next_page_offset"]
