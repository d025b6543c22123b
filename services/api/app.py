"""The application: every route, around resources that are handed in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

import sluice
from services.api.dependencies import Resources
from services.api.errors import MEDIA_TYPE, Problem, add_handlers
from services.api.idempotency import Answered, KeepsAnswers, replay
from services.api.middleware import LimitedBody, Observed
from services.api.permissions import PERMISSIONS
from services.api.routes import (
    admin_audit,
    admin_dead_letters,
    admin_jobs,
    admin_maintenance,
    admin_models,
    authentication,
    chat,
    documents,
    jobs,
    search,
    sources,
    system,
    uploads,
)

_ROUTERS: Final = tuple(
    module.router
    for module in (
        authentication,
        sources,
        documents,
        uploads,
        jobs,
        admin_jobs,
        admin_dead_letters,
        admin_audit,
        admin_maintenance,
        admin_models,
        search,
        chat,
        system,
    )
)
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {}}}
    for status in (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
}


def create_app(resources: Resources) -> FastAPI:
    """The API around these resources, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await resources.close()

    app = FastAPI(
        title="Sluice",
        version=sluice.__version__,
        summary="Documents in, cited answers out.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_PROBLEMS,
        separate_input_output_schemas=False,
    )
    app.state.resources = resources
    for router in _ROUTERS:
        app.include_router(router)
    system.add_docs(app)
    add_handlers(app)
    app.add_exception_handler(Answered, replay)
    app.add_middleware(KeepsAnswers, resources=resources)
    app.add_middleware(LimitedBody, upload_path="/api/documents", upload_limit=resources.ingest.max_upload_bytes)
    app.add_middleware(Observed)
    _check_permissions()
    return app


def _check_permissions() -> None:
    """A route that nobody thought about is a route that anybody may call: refuse to start with one."""
    routes = (route for router in _ROUTERS for route in router.routes)
    named = {str(route.operation_id) for route in routes if isinstance(route, APIRoute)}
    if named != set(PERMISSIONS):
        raise RuntimeError(f"permissions.py and the routes differ: {sorted(named ^ set(PERMISSIONS))}")
