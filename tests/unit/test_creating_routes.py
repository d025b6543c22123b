"""Every route that creates something can be told not to do so twice."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from services.api import app
from services.api.idempotency import ONCE, UPLOADED_ONCE

# They create nothing, or, as `chat`, answer in a stream that cannot be kept.
NOT_CREATING = {
    "login", "search", "chat", "cancelMessage", "cancelJob", "retryJob", "cancelJobs", "retryJobs", "discardDeadLetter",
    "discardDeadLetters", "verifyModel", "activateModel",
}  # fmt: skip
POSTS = [
    route
    for router in app._ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and "POST" in (route.methods or ())
]


@pytest.mark.parametrize("route", POSTS, ids=lambda route: str(route.operation_id))
def test_a_route_that_creates_takes_an_idempotency_key(route: APIRoute) -> None:
    takes_one = any(each in route.dependencies for each in (ONCE, UPLOADED_ONCE))

    assert takes_one == (route.operation_id not in NOT_CREATING)
