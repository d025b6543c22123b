"""Settings come from the environment or from files, and what is wrong is said in a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice import settings
from sluice.environment import Settings, SettingsError, exit_with_reason
from sluice.settings import (
    AuthSettings,
    DatabaseSettings,
    EmbeddingClientSettings,
    FurtherModel,
    IngestSettings,
    JobSettings,
    ObjectStoreSettings,
)

URL = "postgresql+psycopg://sluice_app:secret@127.0.0.1/sluice"


@pytest.fixture(autouse=True)
def empty_environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("SLUICE_")]:
            patch.delenv(name)
        yield patch


def groups() -> list[type[Settings]]:
    found = [value for value in vars(settings).values() if isinstance(value, type) and issubclass(value, Settings)]
    return [group for group in found if group is not Settings]


def test_a_variable_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_DATABASE_URL", URL)
    monkeypatch.setenv("SLUICE_DATABASE_POOL_SIZE", "3")

    database = DatabaseSettings.from_environment()

    assert (database.url.get_secret_value(), database.pool_size, database.system_url) == (URL, 3, None)


def test_a_secret_is_read_from_the_file_that_a_variable_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{URL}\n", encoding="utf-8")
    monkeypatch.setenv("SLUICE_DATABASE_URL_FILE", str(secret))

    assert DatabaseSettings.from_environment().url.get_secret_value() == URL


def test_a_key_of_several_lines_is_read_whole_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "key.pem"
    secret.write_text("-----BEGIN\nline\n-----END\n", encoding="utf-8")
    monkeypatch.setenv("SLUICE_AUTH_PRIVATE_KEY_FILE", str(secret))

    assert AuthSettings.from_environment().private_key.get_secret_value() == "-----BEGIN\nline\n-----END"


def test_a_value_and_a_file_for_it_at_once_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("other", encoding="utf-8")
    monkeypatch.setenv("SLUICE_DATABASE_URL", URL)
    monkeypatch.setenv("SLUICE_DATABASE_URL_FILE", str(tmp_path / "secret"))

    with pytest.raises(SettingsError, match="Both SLUICE_DATABASE_URL and SLUICE_DATABASE_URL_FILE are set"):
        DatabaseSettings.from_environment()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "cannot be read: No such file"), ("", "is empty"), ("\n", "is empty")]
)
def test_a_file_that_is_missing_or_empty_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    monkeypatch.setenv("SLUICE_DATABASE_URL_FILE", str(path))

    with pytest.raises(SettingsError, match=f"SLUICE_DATABASE_URL_FILE points to .*{path.name}, which {reason}"):
        DatabaseSettings.from_environment()


def test_a_list_that_is_not_json_is_named_with_how_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_EMB_URL", "http://emb")
    monkeypatch.setenv("SLUICE_EMB_LANGUAGES", "en,ru")

    with pytest.raises(SettingsError, match=r'"languages".*written as JSON: \["en", "ru"\]'):
        settings.EmbeddingClientSettings.from_environment()

    monkeypatch.setenv("SLUICE_EMB_LANGUAGES", '["en", "ru"]')
    assert settings.EmbeddingClientSettings.from_environment().languages == ["en", "ru"]


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as incomplete:
        ObjectStoreSettings.from_environment()

    for name in ("SLUICE_S3_ENDPOINT", "SLUICE_S3_ACCESS_KEY", "SLUICE_S3_SECRET_KEY"):
        assert name in str(incomplete.value)
    assert "SLUICE_S3_BUCKET" not in str(incomplete.value)
    assert "_FILE" in str(incomplete.value)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (JobSettings, "SLUICE_JOBS_LEASE_SECONDS", "0"),
        (JobSettings, "SLUICE_JOBS_MAX_ATTEMPTS", "many"),
        (IngestSettings, "SLUICE_INGEST_PARSE_MEMORY_BYTES", "1000"),
        (settings.TelemetrySettings, "SLUICE_LOG_FORMAT", "xml"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, group: type[Settings], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name):
        group.from_environment()


def test_a_reason_for_not_starting_is_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        exit_with_reason(SettingsError("SLUICE_S3_ENDPOINT is not set."))

    assert ended.value.code == 78
    assert capsys.readouterr().err == "sluice: SLUICE_S3_ENDPOINT is not set.\n"


def test_secrets_are_not_shown_when_settings_are_printed() -> None:
    shown = ObjectStoreSettings(endpoint="http://s3", access_key="the-access-key", secret_key="the-secret-key")

    assert "the-access-key" not in repr(shown)
    assert "the-secret-key" not in repr(shown)


def test_whatever_is_named_like_a_secret_is_one() -> None:
    for group in groups():
        for name, field in group.model_fields.items():
            secret = "SecretStr" in str(field.annotation)
            assert secret or not name.endswith(("_key", "password", "secret")), f"{group.__name__}.{name}"


def test_no_variable_belongs_to_two_groups_with_different_defaults() -> None:
    defaults: dict[str, object] = {}
    for group in groups():
        for name, field in group.model_fields.items():
            variable = f"{group.model_config['env_prefix']}{name}".upper()
            if field.is_required():
                continue
            assert defaults.setdefault(variable, field.default) == field.default or variable in SEEN_FROM_TWO_SIDES


# The service and its client each have a say: what a model reads is asked of the model, and a client may overrule it.
SEEN_FROM_TWO_SIDES = {"SLUICE_EMB_LANGUAGES"}


def test_further_models_are_named_by_their_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_EMB_URL", "http://emb:8001")
    monkeypatch.setenv("SLUICE_EMB_MORE_ALIASES", '{"fast": {}, "world": {"languages": ["ru"], "min_similarity": 0.8}}')

    more = EmbeddingClientSettings.from_environment().more_aliases

    assert more == {"fast": FurtherModel(), "world": FurtherModel(languages=("ru",), min_similarity=0.8)}


def test_a_list_that_a_stack_file_hands_on_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_EMB_URL", "http://emb:8001")
    monkeypatch.setenv("SLUICE_EMB_MORE_ALIASES", "")
    monkeypatch.setenv("SLUICE_EMB_LANGUAGES", "")

    embedding = EmbeddingClientSettings.from_environment()

    assert (embedding.more_aliases, embedding.languages) == ({}, ["en"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('{"default": {}}', "which is SLUICE_EMB_ALIAS"),
        ('{"a/b": {}}', "string should match pattern"),
        ('{"fast": {"language": "en"}}', "extra inputs are not permitted"),
        ("fast", "written as JSON"),
    ],
)
def test_further_models_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv("SLUICE_EMB_URL", "http://emb:8001")
    monkeypatch.setenv("SLUICE_EMB_MORE_ALIASES", value)

    with pytest.raises(SettingsError, match=reason):
        EmbeddingClientSettings.from_environment()
