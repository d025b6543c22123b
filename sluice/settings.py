"""Settings: one group per part, read from `SLUICE_*` variables, each also from a file named by `SLUICE_*_FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from sluice.environment import Settings


class DatabaseSettings(Settings):
    """PostgreSQL, as three roles see it."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_DATABASE_")

    url: SecretStr = Field(description="PostgreSQL URL of the role that row-level security binds")
    system_url: SecretStr | None = Field(
        None, description="URL of the role that sees all tenants (sign-in, dispatcher)"
    )
    pool_size: int = Field(10, ge=1, description="Connections a process may hold")


class MigrationSettings(Settings):
    """PostgreSQL, as the owner of the schema sees it."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_DATABASE_")

    owner_url: SecretStr = Field(description="PostgreSQL URL of the role that owns the tables (migrations only)")
    admin_url: SecretStr | None = Field(
        None, description="URL of a superuser, with which `services.api.prepare` makes database, roles and logins"
    )


class AdministratorSettings(Settings):
    """The first administrator, made when a deployment is prepared."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_ADMIN_")

    email: str = Field("admin@sluice.local", description="E-mail address to sign in with")
    tenant: str = Field("Default", description="Name of the first tenant")
    password: SecretStr = Field(description="Password of the first sign-in; later changes are not undone")


class BrokerSettings(Settings):
    """RabbitMQ."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_BROKER_")

    url: SecretStr = Field(description="AMQP URL with user, password and virtual host")


class RedisSettings(Settings):
    """Redis: counters and flags that may be lost."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_REDIS_")

    url: SecretStr = Field(description="Redis URL")


class ObjectStoreSettings(Settings):
    """An S3-compatible server."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_S3_")

    endpoint: str = Field(description="URL by which our processes reach the server")
    public_endpoint: str | None = Field(
        None, description="URL by which clients reach it; presigned URLs are signed for it"
    )
    access_key: SecretStr
    secret_key: SecretStr
    bucket: str = "sluice"
    region: str = "us-east-1"


class VectorIndexSettings(Settings):
    """Qdrant."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_QDRANT_")

    url: str = Field(description="URL of Qdrant's REST API")
    api_key: SecretStr | None = None
    timeout: float = Field(10.0, gt=0, description="Seconds to wait for an answer")


class FurtherModel(BaseModel):
    """A model that embeds every chunk and question beside the default one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    languages: tuple[str, ...] = ("en",)
    """ISO 639-1, of those that it reads well."""
    min_similarity: float = Field(0.3, ge=-1, le=1)
    """Cosine from which a passage counts as relevant although it shares no word: each model has its own scale."""
    url: str | None = None
    """Of the EMB service that has it; default: the one of the default model."""


class EmbeddingClientSettings(Settings):
    """How to reach EMB, and what its models can read."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_EMB_")

    url: str = Field(description="URL of the EMB service")
    alias: str = Field("default", description="Alias of the model that embeds chunks and questions")
    languages: list[str] = Field(["en"], description="Languages (ISO 639-1) that the model reads well; steers fusion")
    more_aliases: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")], FurtherModel] = Field(
        {},
        description="Further models that embed every chunk and question, by alias, with what is to be known of each: "
        '`{"fast": {"languages": ["en"], "min_similarity": 0.3, "url": "http://emb-fast:8001"}}`',
    )
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for one batch")

    @model_validator(mode="after")
    def _each_alias_once(self) -> Self:
        if self.alias in self.more_aliases:
            raise ValueError(
                f"SLUICE_EMB_MORE_ALIASES names {self.alias!r}, which is SLUICE_EMB_ALIAS: keep one of them"
            )
        return self


class CompletionClientSettings(Settings):
    """How to reach LLM."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_LLM_")

    url: str = Field(description="URL of the LLM service")
    model: str = Field("default", description="Alias of the model that answers")
    timeout: float = Field(120.0, gt=0, description="Seconds to wait for the next piece of an answer")


class JobSettings(Settings):
    """How long work may take, and how often it is tried."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_JOBS_")

    lease_seconds: float = Field(60.0, gt=0, description="A worker that is silent this long has lost its step")
    heartbeat_seconds: float = Field(15.0, gt=0, description="How often a worker says that it is alive")
    max_attempts: int = Field(5, ge=1, description="Attempts before a step fails for good")
    backoff_seconds: float = Field(2.0, gt=0, description="Delay before the second attempt; doubles, with jitter")
    backoff_max_seconds: float = Field(300.0, gt=0)
    in_flight: int = Field(
        4, ge=1, description="Messages of a queue that are out at once, for each step that workers can run at once"
    )
    poll_seconds: float = Field(1.0, gt=0, description="The dispatcher looks this often when nothing wakes it")
    sweep_seconds: float = Field(15.0, gt=0, description="How often lost leases and lost dispatches are looked for")
    dispatch_timeout_seconds: float = Field(
        120.0, gt=0, description="A published step unclaimed this long is sent again, if the broker has lost messages"
    )
    urgent_bytes: int = Field(1024**2, ge=0, description="Documents up to this size take the urgent lane")
    doctor_hours: float = Field(
        24.0, ge=0, description="How often the stores of each tenant are compared and mended; 0: never"
    )
    doctor_grace_seconds: float = Field(
        3600.0, ge=0, description="Objects and erasures younger than this are not held against a store"
    )
    attempts_days: float = Field(30.0, gt=0, description="Days that the attempts of a finished job are kept")


class KillPointSettings(Settings):
    """Faults on command, for tests."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_")

    environment: Literal["production", "test"] = Field(
        "production", description="`test` allows what would harm a deployment, such as kill points"
    )
    kill_points: Path | None = Field(None, description="Folder of armed kill points, where the environment is test")

    @model_validator(mode="after")
    def _not_in_production(self) -> Self:
        if self.kill_points is not None and self.environment != "test":
            raise ValueError(
                "kill points let any file in a folder kill this process, so production refuses them: remove "
                "SLUICE_KILL_POINTS, or set SLUICE_ENVIRONMENT=test on a platform that nobody needs"
            )
        return self


class IngestSettings(Settings):
    """Limits of reading documents."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_INGEST_")

    max_upload_bytes: int = Field(1024**3, ge=1, description="Largest document accepted")
    parse_memory_bytes: int = Field(1024**3, ge=64 * 1024**2, description="Address space of the parsing child")
    parse_timeout_seconds: float = Field(120.0, gt=0, description="Wall-clock time of the parsing child")
    max_unpacked_bytes: int = Field(512 * 1024**2, ge=1, description="Largest unpacked size of a zip-based document")
    max_unpack_ratio: int = Field(200, ge=1, description="Largest ratio of unpacked to packed size")
    ocr: bool = Field(False, description="Read scans and images with Tesseract (must be installed)")
    ocr_languages: str = Field("eng+rus", description="Tesseract's language codes, joined by +")
    chunk_tokens: int = Field(200, ge=32, description="Size of a chunk, in tokens of the embedding model")
    chunk_overlap_tokens: int = Field(30, ge=0)
    embed_batch_tokens: int = Field(8192, ge=256, description="Tokens sent to EMB in one request")


class RetrievalSettings(Settings):
    """How passages are found."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_RETRIEVAL_")

    candidates: int = Field(100, ge=10, description="Hits taken from each leg before fusion")
    passages: int = Field(6, ge=1, le=50, description="Passages given to the model for one answer")
    min_similarity: float = Field(
        0.3, ge=-1, le=1, description="Cosine from which a passage counts as relevant although it shares no word"
    )


class AuthSettings(Settings):
    """Signing of access tokens."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_AUTH_")

    private_key: SecretStr = Field(description="Ed25519 private key, PEM (PKCS 8), that signs access tokens")
    token_minutes: int = Field(15, ge=1)
    issuer: str = "sluice"
    login_limit: str = Field("10/minute", description="Sign-in attempts per e-mail address and client address")


class ApiSettings(Settings):
    """The API process."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_API_")

    host: str = "127.0.0.1"
    port: int = 8000
    sse_heartbeat_seconds: float = Field(15.0, gt=0)
    trusted_proxies: str = Field(
        "127.0.0.1",
        description="Addresses or networks, joined by commas, whose `X-Forwarded-For` and `-Proto` are believed",
    )


class ModelStoreSettings(Settings):
    """Where models are."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_MODELS_")

    folder: Path = Field(
        Path("models"), description="Models folder, with manifest.json; kept by `sluice models` and the API"
    )


class EmbServiceSettings(Settings):
    """The EMB process."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_EMB_")

    host: str = "127.0.0.1"
    port: int = 8001
    alias: str = "default"
    model_path: Path | None = Field(
        None, description="Folder of the default model, where the manifest names none; without it: the built-in MiniLM"
    )
    threads: int | None = Field(None, ge=1, description="Default: CPU affinity or cgroup quota, whichever is less")
    backend: str = Field(
        "openvino",
        description="Of the default model: openvino (converted by `sluice models add`), static (made by "
        "`sluice models distill`), or sentence_transformers (torch, any model of that kind)",
    )
    languages: list[str] | None = Field(None, description="Languages (ISO 639-1) that the model reads well, if known")
    batch_tokens: int = Field(1024, ge=64, description="Padded tokens of one forward pass, at most")
    pass_milliseconds: float = Field(
        30.0,
        gt=0,
        description="Documents go through in passes of about this length, or of one long text; a question goes next",
    )
    models_poll_seconds: float = Field(2.0, gt=0, description="How often the models folder is looked at for changes")
    stuck_seconds: float = Field(
        15.0, gt=0, description="A model whose pass has not ended for this long is stuck: the service is not ready"
    )
    queue_tokens: int = Field(262_144, ge=1024, description="Tokens that may wait; more is refused with 429")
    queue_seconds: float = Field(30.0, gt=0, description="A request that waited longer is dropped with 503")
    max_text_chars: int = Field(100_000, ge=1, description="A longer text is refused with 413")
    max_request_bytes: int = Field(8 * 1024**2, ge=1, description="A larger body is refused with 413")


class LlmServiceSettings(Settings):
    """The LLM process."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_LLM_")

    host: str = "127.0.0.1"
    port: int = 8002
    backend: str = Field(
        "extractive", description="extractive (built in), llama_cpp (GGUF), manifest (what the alias means), or remote"
    )
    model: str = "default"
    model_path: Path | None = Field(None, description="The GGUF file that llama_cpp loads")
    threads: int | None = Field(None, ge=1, description="Default: CPU affinity or cgroup quota, whichever is less")
    sequences: int = Field(8, ge=1, le=8, description="Answers that llama_cpp writes at the same time")
    context_tokens: int = Field(
        8192, ge=256, description="Prompt and answer together, for each sequence; its memory is reserved at the start"
    )
    models_poll_seconds: float = Field(2.0, gt=0, description="How often the models folder is looked at for changes")
    answer_tokens: int = Field(1024, ge=1, description="Length of an answer at most when the request does not say one")
    inter_token_seconds: float = Field(
        0.05,
        gt=0,
        description="Prompts are read beside running answers as long as these pause no longer than this",
    )
    prompt_cache_bytes: int = Field(
        512 * 1024**2, ge=0, description="Memory for computed prompts that had to make room; 0: none is kept"
    )
    remote_kind: Literal["openai", "gigachat"] = Field("openai", description="What the remote server speaks")
    remote_url: str | None = Field(
        None, description="Where the remote backend finds /chat/completions; prompts and passages are sent there"
    )
    remote_model: str | None = Field(None, description="The model's name on the remote server")
    remote_key: SecretStr | None = Field(None, description="API key; for GigaChat, the authorization key")
    remote_auth_url: str | None = Field(None, description="Where GigaChat's tokens are bought")
    remote_scope: str = Field("GIGACHAT_API_PERS", description="Scope of GigaChat's tokens")
    remote_ca: Path | None = Field(None, description="Certificate authority (PEM) that the remote server is signed by")
    remote_timeout: float = Field(60.0, gt=0, description="Seconds to wait for the next piece of a remote answer")
    remote_attempts: int = Field(1, ge=1, le=10, description="Attempts until a remote answer begins; 1: no retry")
    remote_backoff_seconds: float = Field(
        0.5, gt=0, description="Pause before the second attempt; doubles, with jitter"
    )
    remote_breaker_failures: int = Field(
        0, ge=0, description="After so many failures in a row the remote server is left alone for 30 s; 0: never"
    )
    stuck_seconds: float = Field(
        15.0, gt=0, description="A model that has made no step for this long is stuck: the service is not ready"
    )
    queue_requests: int = Field(64, ge=1, description="Requests that may wait; more are refused with 429")
    queue_tokens: int = Field(
        262_144,
        ge=1,
        description="Tokens, to be read and to be written, that may wait; more is refused with 429",
    )
    queue_seconds: float = Field(30.0, gt=0, description="A request that waited longer is dropped with 503")
    max_prompt_tokens: int = Field(32_768, ge=256)
    max_request_bytes: int = Field(4 * 1024**2, ge=1, description="A larger body is refused with 413")
    ping_seconds: float = Field(10.0, gt=0, description="A silent stream gets a comment this often")
    reader_seconds: float = Field(30.0, gt=0, description="A client that reads nothing for this long loses its stream")


class TelemetrySettings(Settings):
    """Logs and build facts."""

    log_level: str = "INFO"
    log_format: str = Field("json", pattern="^(json|console)$")
    commit: str = Field("unknown", description="Commit of this build; shown by /api/version")
    built_at: str | None = None
    metrics_port: int | None = Field(None, description="Port for /metrics of processes without HTTP of their own")
