"""Every operation of the API has a row that says who may call it, and every row an operation."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from services.api import app
from services.api.auth import caller
from services.api.permissions import PERMISSIONS
from sluice.identity.roles import Role

ANYBODY = {"login", "getVersion", "getHealth", "getReadiness", "getMetrics"}


def routes() -> list[APIRoute]:
    return [route for router in app._ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def depends_on_the_caller(route: APIRoute) -> bool:
    waiting = [route.dependant]
    while waiting:
        dependant = waiting.pop()
        if dependant.call is caller:
            return True
        waiting += dependant.dependencies
    return False


def test_every_route_has_an_operation_id_of_its_own_and_a_row() -> None:
    ids = [route.operation_id for route in routes()]

    assert None not in ids
    assert len(ids) == len(set(ids))
    assert set(ids) == set(PERMISSIONS)


@pytest.mark.parametrize("route", routes(), ids=lambda route: str(route.operation_id))
def test_a_route_asks_who_is_calling_unless_it_is_for_anybody(route: APIRoute) -> None:
    needed = PERMISSIONS[str(route.operation_id)]

    assert depends_on_the_caller(route) == (needed is not None)


def test_only_signing_in_and_what_machines_probe_is_for_anybody() -> None:
    assert {operation for operation, role in PERMISSIONS.items() if role is None} == ANYBODY


@pytest.mark.parametrize("route", routes(), ids=lambda route: str(route.operation_id))
def test_what_changes_documents_is_not_for_viewers(route: APIRoute) -> None:
    changes = (route.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}
    about = ("/api/documents", "/api/sources", "/api/uploads")
    if changes and route.path.startswith(about):
        assert PERMISSIONS[str(route.operation_id)] is Role.EDITOR


def test_a_route_without_a_row_keeps_the_api_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PERMISSIONS, "search")

    with pytest.raises(RuntimeError, match=r"permissions\.py and the routes differ: \['search'\]"):
        app._check_permissions()


def test_a_role_includes_itself_and_the_lesser_ones() -> None:
    order = [Role.VIEWER, Role.EDITOR, Role.TENANT_ADMIN, Role.ADMIN]

    assert list(Role) == order
    for index, role in enumerate(order):
        assert [role.includes(other) for other in order] == [n <= index for n in range(len(order))]
