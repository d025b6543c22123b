"""What tests of the job engine share, and the language models of LLM's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from infra.embedded.platform import Platform
from sluice.identity.roles import Role
from sluice.testing.service_process import ServiceProcess, running_service
from tests.e2e.running import Join, Stores
from tests.gguf_models import SLOW, TINY, write_model
from tests.integration.indexed_world import IndexedWorld
from tests.integration.job_bench import Bench
from tests.integration.llm_models import SLOW_SETTINGS, TINY_SETTINGS, Llm


@pytest.fixture(scope="module")
def no_dispatcher(platform: Platform) -> Iterator[None]:
    """The platform's own sweeper would tidy up what these tests look at."""
    platform.stop("dispatcher")
    yield
    platform.start("dispatcher")


@pytest.fixture
def bench(stores: Stores, join: Join) -> Bench:
    return Bench(stores, join(f"Bench {uuid4().hex}", Role.ADMIN).tenant_id, f"test.{uuid4().hex}")


@pytest.fixture
def world(stores: Stores, join: Join, variables: dict[str, str]) -> Iterator[IndexedWorld]:
    tenant_id = join(f"Indexed {uuid4().hex}", Role.ADMIN).tenant_id
    world = IndexedWorld(stores, tenant_id, variables["SLUICE_DATABASE_URL"])
    yield world
    world.forget()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Its name is in every piece of an answer: the longer it is, the sooner the buffers of who does not read are full.
    return write_model(tmp_path_factory.mktemp("models") / f"{'very-' * 40}tiny.gguf", TINY)


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "slow.gguf", SLOW)


@pytest.fixture(scope="session")
def llm(tiny_model: Path) -> Iterator[Llm]:
    """Eight sequences of 2,048 tokens, and a model that answers at once."""
    with (
        running_service("llm", backend="llama_cpp", model_path=tiny_model, **TINY_SETTINGS) as service,
        Llm(service) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def slow_service(slow_model: Path) -> Iterator[ServiceProcess]:
    with running_service("llm", backend="llama_cpp", model_path=slow_model, **SLOW_SETTINGS) as service:
        yield service


@pytest.fixture
def slow_llm(slow_service: ServiceProcess) -> Iterator[Llm]:
    """Two sequences, four places in the queue, and a model that is caught at work."""
    with Llm(slow_service) as client:
        yield client
        client.until_idle()
