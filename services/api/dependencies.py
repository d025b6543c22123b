"""What routes need, made once by the application and handed to each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from services.api.login_limit import LoginLimit
from sluice.cache import Cache
from sluice.chat.answer import Answerer
from sluice.completion_client import HttpCompletionClient
from sluice.db.session import Sessions
from sluice.db.unscoped import UnscopedSessions
from sluice.identity.tokens import TokenSigner
from sluice.object_store import ObjectStore
from sluice.retrieval.search import Search
from sluice.served_models import ServedModels
from sluice.settings import ApiSettings, IngestSettings, JobSettings, ModelStoreSettings, TelemetrySettings
from sluice.vector_index import VectorIndex


@dataclass(frozen=True)
class Resources:
    """Stores, services and settings of one API process."""

    sessions: Sessions
    unscoped: UnscopedSessions
    store: ObjectStore
    index: VectorIndex
    completions: HttpCompletionClient
    cache: Cache
    signer: TokenSigner
    login_limit: LoginLimit
    served: ServedModels
    search: Search
    answerer: Answerer
    api: ApiSettings
    ingest: IngestSettings
    jobs: JobSettings
    models: ModelStoreSettings
    telemetry: TelemetrySettings

    async def close(self) -> None:
        """Give up connections and threads."""
        self.search.close()
        self.served.close()
        await self.completions.close()
        self.sessions.kw["bind"].dispose()
        self.unscoped.kw["bind"].dispose()


def resources(request: Request) -> Resources:
    """The resources of the application that serves this request."""
    return cast("Resources", request.app.state.resources)


ResourcesDep = Annotated[Resources, Depends(resources)]
