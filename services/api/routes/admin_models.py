"""`/api/admin/models`: the models folder and the services that follow it, as `sluice models` has them, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from services.api.auth import CallerDep
from services.api.dependencies import Resources, ResourcesDep
from services.api.idempotency import ONCE
from services.api.models_folder import models_folder
from services.api.outdated import Outdated, outdated_of
from services.api.sessions import SessionDep
from sluice.db.session import TenantSession, tenant_session
from sluice.errors import Conflict, TemporarilyUnavailable
from sluice.identity import audit
from sluice.identity.tokens import Caller
from sluice.model_store.manifest import Manifest, ModelEntry, ModelType, Name
from sluice.served_models import Followed, Follows, ServiceState

router = APIRouter(prefix="/api/admin/models", tags=["Administration"])

ModelPath = Annotated[str, Path(description="`name`, or `name@version` where there are several")]


class ModelView(ModelEntry):
    """A model of the folder."""

    model: str = Field(description="`name@version`")
    aliases: dict[str, Literal["active", "previous"]] = Field(description="Which mean it, or can be rolled back to it")


class AliasView(BaseModel):
    """What an alias means in the manifest."""

    alias: str
    type: ModelType
    model: str
    previous: str | None = Field(description="What `:rollback` goes back to")


class ServedView(BaseModel):
    """What an alias means at a service that runs."""

    alias: str
    model: str = Field(description="`name@version`, or the name of a model that its settings name")
    backend: str
    vectors: str | None = Field(description="EMB: the version that stands beside every vector")


class ServiceView(BaseModel):
    """EMB or LLM at this moment."""

    type: ModelType
    url: str
    state: str = Field(description="ready, loading, draining or failed; `away` if it does not answer")
    models: list[ServedView]
    problems: dict[str, str] = Field(description="Why an alias does not mean what the manifest says, by alias")


class ModelsView(BaseModel):
    """The models folder, the services, and what the index lacks."""

    folder: str
    problem: str | None = Field(description="Why the folder cannot be read; then `models` and `aliases` are empty")
    models: list[ModelView]
    aliases: list[AliasView]
    services: list[ServiceView]
    outdated: Outdated | None = Field(description="Of your tenant; null while EMB is away")


class Verified(BaseModel):
    """Whether the files of a model are what was added."""

    model: str
    intact: bool
    problem: str | None


class Activation(BaseModel):
    """Which alias is to mean the model."""

    alias: Name = "default"


class Rollback(BaseModel):
    """Which alias is to mean what it meant before."""

    alias: Name = "default"
    type: ModelType = "embed"


class FollowedView(BaseModel):
    """What the service has made of the change."""

    follows: Follows = Field(
        description="`serving`: it serves the model. `loading`: not yet. `refused`: it could not, and serves what it "
        "did. `another`: it has other settings or another models folder. `away`: it loads it when it is back"
    )
    model: str | None = Field(description="What the alias means there now")
    problem: str | None


class Activated(AliasView):
    """An alias that means another model, and what follows from that."""

    service: FollowedView
    outdated: Outdated | None = Field(
        description="Embedding models of the index: what your tenant has to index again. Null while that is not known: "
        "ask `GET /api/admin/models/outdated` once the service serves the model"
    )


@router.get("", operation_id="listModels", summary="List the models")
def list_models(who: CallerDep, it: ResourcesDep) -> ModelsView:
    """Every model of the folder with its aliases, what each service serves, and the documents left behind."""
    manifest, problem = Manifest(), None
    try:
        with models_folder(it) as store:
            manifest = store.manifest()
    except Conflict as error:
        problem = error.detail
    return ModelsView(
        folder=str(it.models.folder),
        problem=problem,
        models=[_model(manifest, entry) for entry in manifest.models],
        aliases=[_alias(manifest, kind, name) for kind, names in manifest.aliases.items() for name in names],
        services=[_service(state) for state in it.served.states()],
        outdated=_outdated_now(it, who),
    )


@router.get("/outdated", operation_id="listOutdated", summary="List documents left behind by an embedding model")
def list_outdated(session: SessionDep, it: ResourcesDep) -> Outdated:
    """How many documents of each source the embedding models of now have not embedded.

    They are found by their words until their source is indexed again: `reindex` is the path to post to.
    """
    return outdated_of(session, it.served)


@router.post("/{model}:verify", operation_id="verifyModel", summary="Verify a model")
def verify(model: ModelPath, who: CallerDep, it: ResourcesDep) -> Verified:
    """Read all files of a model and compare size and SHA-256 with what was added."""
    with models_folder(it) as store:
        entry = store.manifest().named(model)
        problem = store.what_is_wrong(entry)
    with tenant_session(it.sessions, who.tenant_id) as session:
        audit.record(session, "model.verify", "model", by=who.user_id, model=str(entry.key), intact=problem is None)
    return Verified(model=str(entry.key), intact=problem is None, problem=problem)


@router.post("/{model}:activate", operation_id="activateModel", summary="Activate a model")
def activate(model: ModelPath, wanted: Activation, who: CallerDep, it: ResourcesDep) -> Activated:
    """Let an alias mean this model, once its files are verified, and have the service exchange it while requests run.

    The answer says whether the service did, and how many documents are to be indexed again. If the service could not
    load the model, the alias means again what it meant.
    """
    with models_folder(it) as store:
        before = store.manifest()
        entry = before.named(model)
        # Before the transaction: this may read gigabytes.
        store.verified(entry)
        with _written_down(it, who) as session:
            after = store.activate(wanted.alias, entry.key)
            now = _alias(after, entry.type, wanted.alias)
            audit.record(session, "model.activate", "model", by=who.user_id, **now.model_dump())
    return _activated(it, who, now, before, after)


@router.post(":rollback", operation_id="rollbackModel", summary="Roll an alias back", dependencies=[ONCE])
def rollback(wanted: Rollback, who: CallerDep, it: ResourcesDep) -> Activated:
    """Let an alias mean what it meant before; a second time takes that back."""
    with models_folder(it) as store:
        before = store.manifest()
        store.verified(before.rolled_back(wanted.type, wanted.alias).active(wanted.type)[wanted.alias])
        with _written_down(it, who) as session:
            after = store.rollback(wanted.type, wanted.alias)
            now = _alias(after, wanted.type, wanted.alias)
            audit.record(session, "model.rollback", "model", by=who.user_id, **now.model_dump())
    return _activated(it, who, now, before, after)


@router.delete("/{model}", operation_id="deleteModel", status_code=204, summary="Delete a model")
def delete(model: ModelPath, who: CallerDep, it: ResourcesDep) -> Response:
    """Delete a model that no alias means or can be rolled back to, and no service serves; 409 says which does."""
    with models_folder(it) as store:
        entry = store.manifest().named(model)
        require_not_served(it.served.states(), entry)
        with _written_down(it, who) as session:
            store.remove(entry.key)
            audit.record(session, "model.delete", "model", by=who.user_id, model=str(entry.key), sha256=entry.sha256)
    return Response(status_code=204)


@contextmanager
def _written_down(it: Resources, who: Caller) -> Iterator[TenantSession]:
    """The transaction in which a change is written down: nothing is changed while PostgreSQL is away."""
    with tenant_session(it.sessions, who.tenant_id) as session:
        session.connection()
        yield session


def require_not_served(services: Sequence[ServiceState], entry: ModelEntry) -> None:
    """`Conflict` names the service that serves this model."""
    for service in services:
        if service.type == entry.type and any(each.model == str(entry.key) for each in service.models):
            raise Conflict(f"{entry.key} answers at {service.url}. Activate another model first.")


def _activated(it: Resources, who: Caller, now: AliasView, before: Manifest, after: Manifest) -> Activated:
    followed = it.served.follow(now.type, now.alias, now.model)
    if followed.follows is Follows.REFUSED:
        # The next start of the service would load what the alias means, and could not.
        with models_folder(it) as store, _written_down(it, who) as session:
            kept = store.put_back(now.type, now.alias, before=before, after=after)
            refused = {**now.model_dump(include={"alias", "type", "model"}), "reason": followed.problem}
            audit.record(session, "model.refused", "model", by=who.user_id, **refused)
        if now.alias in kept.aliases.get(now.type, {}):
            now = _alias(kept, now.type, now.alias)
    known = followed.follows is Follows.SERVING and it.served.makes_index(now.type, now.alias)
    return Activated(
        **now.model_dump(), service=_followed(followed), outdated=_outdated_now(it, who) if known else None
    )


def _outdated_now(it: Resources, who: Caller) -> Outdated | None:
    try:
        with tenant_session(it.sessions, who.tenant_id) as session:
            return outdated_of(session, it.served)
    except TemporarilyUnavailable:
        return None


def _model(manifest: Manifest, entry: ModelEntry) -> ModelView:
    return ModelView(**entry.model_dump(), model=str(entry.key), aliases=manifest.meant_by(entry))


def _alias(manifest: Manifest, kind: ModelType, name: str) -> AliasView:
    alias = manifest.aliases[kind][name]
    previous = str(alias.previous) if alias.previous else None
    return AliasView(alias=name, type=kind, model=str(alias.active), previous=previous)


def _service(state: ServiceState) -> ServiceView:
    return ServiceView(
        type=state.type,
        url=state.url,
        state=state.state,
        models=[ServedView(**vars(each)) for each in state.models],
        problems=dict(state.problems),
    )


def _followed(followed: Followed) -> FollowedView:
    return FollowedView(follows=followed.follows, model=followed.model, problem=followed.problem)
