"""The HTTP server: Qdrant's paths over one catalog of collections."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from infra.embedded.qdrant_server import collection_routes, point_routes, service_routes
from infra.embedded.qdrant_server.catalog import Catalog
from infra.embedded.qdrant_server.envelope import RefusalAnswer, start_clock
from infra.embedded.qdrant_server.housekeeping import Housekeeping
from infra.embedded.qdrant_server.refusals import BadFormat, Refusal

Proceed = Callable[[Request], Awaitable[Response]]


def create_app(catalog: Catalog, api_key: str | None = None) -> FastAPI:
    """The server over this catalog, which is open while the server runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(catalog.open)
        housekeeping = Housekeeping(catalog)
        housekeeping.start()
        yield
        await run_in_threadpool(housekeeping.stop)
        await run_in_threadpool(catalog.close)

    app = FastAPI(title="qdrant", lifespan=lifespan, dependencies=[Depends(start_clock)])
    app.state.catalog = catalog
    for routes in (service_routes, collection_routes, point_routes):
        app.include_router(routes.router)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    if api_key is not None:
        app.middleware("http")(_key_check(api_key))
    return app


def _refused(_: Request, refusal: Exception) -> Response:
    return RefusalAnswer(refusal if isinstance(refusal, Refusal) else Refusal(str(refusal)))


def _unreadable(_: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    # One of them will do: where a value may take several forms, each form complains.
    what = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems[:1])
    return RefusalAnswer(BadFormat(what or str(error)))


def _key_check(api_key: str) -> Callable[[Request, Proceed], Awaitable[Response]]:
    expected: Final = api_key.encode()

    async def check(request: Request, proceed: Proceed) -> Response:
        offered = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path in service_routes.OPEN_TO_ALL or hmac.compare_digest(offered.encode(), expected):
            return await proceed(request)
        reason = "Invalid API key or JWT" if offered else "Must provide an API key or an Authorization bearer token"
        return PlainTextResponse(reason, status_code=401)

    return check
