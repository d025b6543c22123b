"""What the server says about itself."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, ProcessCollector, generate_latest

from infra.embedded.qdrant_server.catalog import Catalog

# The release of Qdrant whose REST API this is; clients compare it with their own.
API_VERSION: Final = "1.20.0"
OPEN_TO_ALL: Final = {"/", "/healthz", "/livez", "/readyz"}

router = APIRouter()


def _catalog(request: Request) -> Catalog:
    catalog: Catalog = request.app.state.catalog
    return catalog


CatalogDep = Annotated[Catalog, Depends(_catalog)]


@router.get("/")
def version() -> dict[str, str]:
    """Name and version; `qdrant-client` reads it before anything else."""
    return {"title": "qdrant - vector search engine", "version": API_VERSION}


@router.get("/healthz")
@router.get("/livez")
def alive() -> PlainTextResponse:
    """The process answers."""
    return PlainTextResponse("healthz check passed")


@router.get("/readyz")
def ready() -> PlainTextResponse:
    """All collections are open: the server does not listen before they are."""
    return PlainTextResponse("all shards are ready")


@router.get("/metrics")
def metrics(catalog: CatalogDep) -> Response:
    """Collections, their points, and the process, for Prometheus."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    collections = catalog.collections()
    Gauge("collections_total", "number of collections", registry=registry).set(len(collections))
    points = Gauge("collection_points", "number of points in a collection", ["id"], registry=registry)
    for collection in collections:
        points.labels(collection.name).set(collection.points())
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
