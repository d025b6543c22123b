"""What operators and machines ask: version, health, readiness, metrics; and the pages about the API."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

import sluice
from services.api import problems
from services.api.dependencies import ResourcesDep
from sluice.db.schema import require_current
from sluice.db.unscoped import unscoped_session

router = APIRouter(tags=["System"])


class Version(BaseModel):
    """What is running."""

    version: str
    commit: str
    built_at: str | None
    api: Literal["1"] = "1"
    max_upload_bytes: int


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


@router.get("/api/version", operation_id="getVersion", summary="Version")
def version(it: ResourcesDep) -> Version:
    """Version and commit of this build, and the limit of an upload."""
    return Version(
        version=sluice.__version__,
        commit=it.telemetry.commit,
        built_at=it.telemetry.built_at,
        max_upload_bytes=it.ingest.max_upload_bytes,
    )


@router.get("/healthz", operation_id="getHealth", summary="Liveness")
async def health() -> Health:
    """The event loop turns. Says nothing of the stores: restarting this process would not bring them back."""
    return Health()


@router.get("/readyz", operation_id="getReadiness", summary="Readiness")
def readiness(it: ResourcesDep) -> Health:
    """PostgreSQL answers and has this version's schema. Parts that can be away for a while do not count."""
    with unscoped_session(it.unscoped) as session:
        require_current(session)
    return Health()


@router.get("/metrics", operation_id="getMetrics", summary="Metrics", response_class=Response)
def metrics() -> Response:
    """Prometheus' text format, for your network only: a proxy in front should not pass it on."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def add_docs(app: FastAPI) -> None:
    """Swagger UI at `/docs`, from files of our own: the page works without internet."""
    assets = Path(str(files("fastapi_offline"))) / "static"
    app.mount("/docs/assets", StaticFiles(directory=assets), name="docs-assets")

    @app.get("/docs/problems", include_in_schema=False)
    def problems_page() -> HTMLResponse:
        return HTMLResponse(problems.as_html())

    @app.get("/docs", include_in_schema=False)
    def docs_page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Sluice API",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )
