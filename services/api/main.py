"""The API process: `python -m services.api.main`."""

from __future__ import annotations

import uvicorn

from services.api.app import create_app
from services.api.dependencies import Resources
from services.api.login_limit import LoginLimit
from sluice.cache import Cache
from sluice.chat.answer import Answerer
from sluice.completion_client import HttpCompletionClient
from sluice.db.session import create_sessions
from sluice.db.unscoped import create_unscoped_sessions
from sluice.embedding_client import embedding_clients
from sluice.environment import SettingsError, exit_with_reason
from sluice.identity.tokens import TokenSigner
from sluice.object_store import S3ObjectStore
from sluice.retrieval.lexical import TOKENIZER_VERSION
from sluice.retrieval.search import Search, dense_legs
from sluice.served_models import ServedModels
from sluice.settings import (
    ApiSettings,
    AuthSettings,
    CompletionClientSettings,
    DatabaseSettings,
    EmbeddingClientSettings,
    IngestSettings,
    JobSettings,
    ModelStoreSettings,
    ObjectStoreSettings,
    RedisSettings,
    RetrievalSettings,
    TelemetrySettings,
    VectorIndexSettings,
)
from sluice.telemetry import configure_logging
from sluice.vector_index import VectorIndex


def connect() -> Resources:
    """Everything that the settings in the environment name. Nothing is contacted yet."""
    database = DatabaseSettings.from_environment()
    auth, redis = AuthSettings.from_environment(), RedisSettings.from_environment()
    embedding, completion = EmbeddingClientSettings.from_environment(), CompletionClientSettings.from_environment()
    retrieval = RetrievalSettings.from_environment()
    sessions = create_sessions(database)
    index = VectorIndex(VectorIndexSettings.from_environment(), TOKENIZER_VERSION)
    completions = HttpCompletionClient(completion)
    cache = Cache(redis)
    search = Search(sessions, index, dense_legs(embedding_clients(embedding), embedding, retrieval), retrieval)
    return Resources(
        sessions=sessions,
        unscoped=create_unscoped_sessions(database),
        store=S3ObjectStore(ObjectStoreSettings.from_environment()),
        index=index,
        completions=completions,
        cache=cache,
        signer=TokenSigner(auth),
        login_limit=LoginLimit(auth, redis),
        served=ServedModels(embedding, completion),
        search=search,
        answerer=Answerer(sessions, search, completions, cache, completion, retrieval),
        api=ApiSettings.from_environment(),
        ingest=IngestSettings.from_environment(),
        jobs=JobSettings.from_environment(),
        models=ModelStoreSettings.from_environment(),
        telemetry=TelemetrySettings.from_environment(),
    )


def main() -> None:
    """Serve until told to stop; streams that are open then get a few seconds to end."""
    try:
        resources = connect()
    except SettingsError as error:
        exit_with_reason(error)
    configure_logging("api", resources.telemetry)
    uvicorn.run(
        create_app(resources),
        host=resources.api.host,
        port=resources.api.port,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=resources.api.trusted_proxies,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
