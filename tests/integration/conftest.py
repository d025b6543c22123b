"""What tests of the job engine share."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from infra.embedded.platform import Platform
from sluice.identity.roles import Role
from tests.e2e.running import Join, Stores
from tests.integration.job_bench import Bench


@pytest.fixture(scope="module")
def no_dispatcher(platform: Platform) -> Iterator[None]:
    """The platform's own sweeper would tidy up what these tests look at."""
    platform.stop("dispatcher")
    yield
    platform.start("dispatcher")


@pytest.fixture
def bench(stores: Stores, join: Join) -> Bench:
    return Bench(stores, join(f"Bench {uuid4().hex}", Role.ADMIN).tenant_id, f"test.{uuid4().hex}")
