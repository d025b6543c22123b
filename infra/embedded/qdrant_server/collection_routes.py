"""Collections, aliases and payload indexes."""

from __future__ import annotations

from typing import Annotated

import qdrant_edge as engine
from fastapi import APIRouter, Depends
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.collection import Collection
from infra.embedded.qdrant_server.envelope import Answer
from infra.embedded.qdrant_server.payload_indexes import engine_schema
from infra.embedded.qdrant_server.refusals import WrongInput, engine_refusals
from infra.embedded.qdrant_server.service_routes import CatalogDep

router = APIRouter()
_one = APIRouter(prefix="/collections/{name}")


def _collection(name: str, catalog: CatalogDep) -> Collection:
    return catalog.collection(name)


CollectionDep = Annotated[Collection, Depends(_collection)]


def update_result(operation: int) -> Answer:
    """An update that is in the engine's log: it cannot be lost any more."""
    return Answer({"operation_id": operation, "status": "completed"})


@router.get("/collections")
def collections(catalog: CatalogDep) -> Answer:
    """The names of all collections."""
    return Answer({"collections": [{"name": one.name} for one in catalog.collections()]})


@router.get("/collections/{name}/exists")
def exists(name: str, catalog: CatalogDep) -> Answer:
    """Whether there is a collection or alias of this name."""
    return Answer({"exists": catalog.has(name)})


@_one.get("")
def describe(collection: CollectionDep) -> Answer:
    """Sizes, settings and payload indexes."""
    return Answer(collection.describe())


@router.put("/collections/{name}")
def create(name: str, definition: rest.CreateCollection, catalog: CatalogDep) -> Answer:
    """Add an empty collection."""
    unserved = [
        field
        for field in ("sharding_method", "quantization_config", "strict_mode_config")
        if getattr(definition, field) is not None
    ]
    if unserved:
        raise WrongInput(f"{', '.join(unserved)}: not served by the embedded Qdrant")
    catalog.create(name, definition)
    return Answer(content=True)


@router.delete("/collections/{name}")
def delete(name: str, catalog: CatalogDep) -> Answer:
    """Remove a collection; `result` says whether there was one."""
    return Answer(catalog.delete(name))


@router.post("/collections/aliases")
def change_aliases(changes: rest.ChangeAliasesOperation, catalog: CatalogDep) -> Answer:
    """Carry out all alias actions at once, or none."""
    catalog.change_aliases(changes.actions)
    return Answer(content=True)


@router.get("/aliases")
def all_aliases(catalog: CatalogDep) -> Answer:
    """Every alias and what it stands for."""
    return Answer({"aliases": catalog.aliases()})


@_one.get("/aliases")
def aliases(collection: CollectionDep, catalog: CatalogDep) -> Answer:
    """The aliases of one collection."""
    return Answer({"aliases": catalog.aliases(of=collection.name)})


@_one.put("/index")
def create_index(collection: CollectionDep, index: rest.CreateFieldIndex) -> Answer:
    """Index a field of the payload."""
    with engine_refusals():
        operation = engine.UpdateOperation.create_field_index(index.field_name, engine_schema(index.field_schema))
    return update_result(collection.update(operation))


@_one.delete("/index/{field}")
def delete_index(collection: CollectionDep, field: str) -> Answer:
    """Drop the index of a field; the field itself stays."""
    return update_result(collection.update(engine.UpdateOperation.delete_field_index(field)))


router.include_router(_one)
