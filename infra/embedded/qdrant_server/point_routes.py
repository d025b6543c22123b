"""Points: written, read, searched."""

from __future__ import annotations

from typing import Annotated, Final

import qdrant_edge as engine
from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError
from qdrant_client.http import models as rest

from infra.embedded.qdrant_server.collection_routes import CollectionDep, update_result
from infra.embedded.qdrant_server.conditions import engine_filter, optional_filter, point_id
from infra.embedded.qdrant_server.envelope import Answer
from infra.embedded.qdrant_server.questions import payload_choice, query_request, scroll_request
from infra.embedded.qdrant_server.refusals import BadFormat, WrongInput, engine_refusals
from infra.embedded.qdrant_server.vectors import engine_points

router = APIRouter(prefix="/collections/{name}/points")


# The usual form first. Read from the bytes, in a thread: an upsert is the largest body by far, and this is five times
# as fast as FastAPI's way through Python objects.
_Upsert = Annotated[rest.PointsList | rest.PointsBatch, Field(union_mode="left_to_right")]
_UPSERT: Final[TypeAdapter[_Upsert]] = TypeAdapter(_Upsert)


async def _body(request: Request) -> bytes:
    return await request.body()


@router.put("")
def upsert(collection: CollectionDep, body: Annotated[bytes, Depends(_body)]) -> Answer:
    """Insert points, or replace those with the same ids."""
    try:
        given = _UPSERT.validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    if given.update_filter is not None or given.update_mode not in {None, rest.UpdateMode.UPSERT}:
        raise WrongInput("conditional upserts are not served by the embedded Qdrant")
    with engine_refusals():
        points = engine_points(given, collection.space)
        operation = engine.UpdateOperation.upsert_points(points)
    return update_result(collection.update(operation, points=len(points)))


@router.post("")
def retrieve(collection: CollectionDep, asked: rest.PointRequest) -> Answer:
    """Those of the points that exist."""
    ids: list[engine.PointId] = [point_id(one) for one in asked.ids]
    return Answer(collection.retrieve(ids, payload_choice(asked.with_payload, default=True), asked.with_vector))


@router.post("/delete")
def delete(collection: CollectionDep, chosen: rest.PointIdsList | rest.FilterSelector) -> Answer:
    """Delete the points with these ids, or those that a filter lets through; missing ones are no error."""
    with engine_refusals():
        if isinstance(chosen, rest.PointIdsList):
            operation = engine.UpdateOperation.delete_points([point_id(one) for one in chosen.points])
            return update_result(collection.update(operation, points=len(chosen.points)))
        kept_out = engine_filter(chosen.filter)
    going = collection.count(engine.CountRequest(exact=False, filter=kept_out))
    return update_result(collection.update(engine.UpdateOperation.delete_points_by_filter(kept_out), points=going))


@router.post("/payload")
def set_payload(collection: CollectionDep, change: rest.SetPayload) -> Answer:
    """Set fields of the payload; the others stay."""
    update = engine.UpdateOperation
    with engine_refusals():
        if change.points is not None:
            ids: list[engine.PointId] = [point_id(one) for one in change.points]
            operation = update.set_payload(ids, change.payload, change.key)
        elif change.filter is not None:
            operation = update.set_payload_by_filter(engine_filter(change.filter), change.payload, change.key)
        else:
            raise BadFormat("either points or filter is needed")
    return update_result(collection.update(operation))


@router.post("/payload/delete")
def delete_payload(collection: CollectionDep, change: rest.DeletePayload) -> Answer:
    """Delete fields of the payload."""
    update = engine.UpdateOperation
    with engine_refusals():
        if change.points is not None:
            operation = update.delete_payload([point_id(one) for one in change.points], change.keys)
        elif change.filter is not None:
            operation = update.delete_payload_by_filter(engine_filter(change.filter), change.keys)
        else:
            raise BadFormat("either points or filter is needed")
    return update_result(collection.update(operation))


@router.post("/query")
def query(collection: CollectionDep, asked: rest.QueryRequest) -> Answer:
    """The nearest points."""
    with engine_refusals():
        request = query_request(asked)
    return Answer({"points": collection.query([request])[0]})


@router.post("/query/batch")
def query_batch(collection: CollectionDep, asked: rest.QueryRequestBatch) -> Answer:
    """The nearest points of several searches, planned together."""
    with engine_refusals():
        requests = [query_request(one) for one in asked.searches]
    return Answer([{"points": hits} for hits in collection.query(requests)])


@router.post("/scroll")
def scroll(collection: CollectionDep, asked: rest.ScrollRequest) -> Answer:
    """A page of points, and where the next page begins."""
    with engine_refusals():
        request = scroll_request(asked)
    return Answer(collection.scroll(request))


@router.post("/count")
def count(collection: CollectionDep, asked: rest.CountRequest) -> Answer:
    """How many points a filter lets through."""
    with engine_refusals():
        request = engine.CountRequest(exact=asked.exact is not False, filter=optional_filter(asked.filter))
    return Answer({"count": collection.count(request)})
