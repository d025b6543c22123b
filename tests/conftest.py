"""The one running platform that integration and end-to-end tests share, and the people who use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select

from infra.embedded.platform import Platform
from sluice.db.session import create_sessions
from sluice.db.unscoped import UnscopedSessions, create_unscoped_sessions, unscoped_session
from sluice.identity.first_admin import ensure_administrator
from sluice.identity.models import Tenant, User
from sluice.identity.passwords import hash_password
from sluice.identity.roles import Role
from sluice.object_store import S3ObjectStore
from sluice.retrieval.lexical import TOKENIZER_VERSION
from sluice.settings import DatabaseSettings, VectorIndexSettings
from sluice.vector_index import VectorIndex
from tests.e2e.api import Api
from tests.e2e.running import (
    HOME,
    PASSWORD,
    ROOT,
    SETTINGS,
    Count,
    Join,
    Member,
    Stores,
    counted,
    object_store_settings,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-platform", action="store_true", help="use the platform that an earlier run left, and leave it running"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # They stop and kill parts of the platform: whatever they leave behind must not look like another test's failure.
    last = ("test_degraded.py", "test_faults.py", "test_experiments.py")
    items.sort(key=lambda item: last.index(item.path.name) if item.path.name in last else -1)


@pytest.fixture(scope="session")
def platform(pytestconfig: pytest.Config) -> Iterator[Platform]:
    """The platform, up, with `SETTINGS`."""
    keep = bool(pytestconfig.getoption("--keep-platform"))
    with pytest.MonkeyPatch.context() as patch:
        _set_environment(patch)
        running = Platform(HOME, ROOT)
        if not keep:
            running.down()
            shutil.rmtree(HOME)
            running = Platform(HOME, ROOT)
        (HOME / "models").mkdir(exist_ok=True)
        running.up()
    yield running
    if not keep:
        running.down()


@pytest.fixture(scope="session")
def variables(platform: Platform) -> dict[str, str]:
    """The `SLUICE_*` variables of the running services."""
    with pytest.MonkeyPatch.context() as patch:
        _set_environment(patch)
        return platform.environment()


@pytest.fixture(scope="session")
def stores(variables: dict[str, str]) -> Iterator[Stores]:
    """The stores themselves, to look behind what the API says."""
    database = DatabaseSettings(
        url=variables["SLUICE_DATABASE_URL"], system_url=variables["SLUICE_DATABASE_SYSTEM_URL"], pool_size=4
    )
    sessions, unscoped = create_sessions(database), create_unscoped_sessions(database)
    yield Stores(
        sessions=sessions,
        unscoped=unscoped,
        objects=S3ObjectStore(object_store_settings(variables)),
        index=VectorIndex(VectorIndexSettings(url=variables["SLUICE_QDRANT_URL"]), TOKENIZER_VERSION),
    )
    for factory in (sessions, unscoped):
        factory.kw["bind"].dispose()


@pytest.fixture(scope="session")
def api_url(variables: dict[str, str]) -> str:
    """Where clients reach the platform: its edge, when nginx is there."""
    return variables["SLUICE_URL"]


@pytest.fixture(scope="session")
def anyone(api_url: str) -> Iterator[httpx.Client]:
    """A client that nobody has signed in."""
    with httpx.Client(base_url=api_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def inside(variables: dict[str, str]) -> Iterator[httpx.Client]:
    """The API as its own network sees it: with what the edge does not pass on."""
    url = f"http://{variables['SLUICE_API_HOST']}:{variables['SLUICE_API_PORT']}"
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def join(stores: Stores, api_url: str) -> Iterator[Join]:
    """Have a new person join a tenant of this name, which is made when there is none, and sign them in."""
    with ExitStack() as open_clients:

        def new_member(tenant: str, role: Role) -> Member:
            email = f"{role}-{uuid4().hex}@example.org"
            if role is Role.ADMIN:
                ensure_administrator(stores.unscoped, tenant=tenant, email=email, password=PASSWORD)
            else:
                _add_user(stores.unscoped, tenant, email, role)
            client = open_clients.enter_context(Api.signed_in(api_url, email, PASSWORD))
            return Member(client.user_id, client.tenant_id, email, client)

        yield new_member


@pytest.fixture(scope="session")
def tenant_name(join: Join) -> str:
    """A tenant for the whole run, with nothing in it yet."""
    name = f"Acme {uuid4().hex}"
    join(name, Role.ADMIN)
    return name


@pytest.fixture(scope="session")
def editor(join: Join, tenant_name: str) -> Member:
    """Somebody who may upload."""
    return join(tenant_name, Role.EDITOR)


@pytest.fixture(scope="session")
def viewer(join: Join, tenant_name: str) -> Member:
    """A colleague of the editor, who may only read and ask."""
    return join(tenant_name, Role.VIEWER)


@pytest.fixture(scope="session")
def stranger(join: Join) -> Member:
    """Somebody with every right, in another tenant."""
    return join(f"Globex {uuid4().hex}", Role.ADMIN)


@pytest.fixture(scope="session")
def embedded_texts(variables: dict[str, str]) -> Count:
    """How many texts EMB's model has read so far."""
    return lambda: counted(variables["SLUICE_EMB_URL"], "emb_batch_texts_sum")


@pytest.fixture(scope="session")
def asked_of_the_model(variables: dict[str, str]) -> Count:
    """How many requests LLM has answered so far."""
    return lambda: counted(variables["SLUICE_LLM_URL"], "llm_requests_total", endpoint="chat_completions")


@pytest.fixture
def api(editor: Member) -> Api:
    """The API, as the editor uses it."""
    return editor.api


@pytest.fixture
def source(api: Api) -> str:
    """A source of this test's own, so that no other test's documents are found."""
    return api.new_source()


def _set_environment(patch: pytest.MonkeyPatch) -> None:
    # What the caller has set would win over the platform's own addresses.
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        patch.delenv(name)
    for name, value in SETTINGS.items():
        patch.setenv(name, value)


def _add_user(sessions: UnscopedSessions, tenant: str, email: str, role: Role) -> None:
    with unscoped_session(sessions) as session:
        owner = session.scalars(select(Tenant).where(Tenant.name == tenant)).one()
        session.add(User(tenant_id=owner.id, email=email, password_hash=hash_password(PASSWORD), role=role))
