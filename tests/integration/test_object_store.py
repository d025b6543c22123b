"""What every S3 server must do for us. Runs against the platform's own, and against any other that the environment names.

`SLUICE_TEST_S3_ENDPOINT`, `SLUICE_TEST_S3_ACCESS_KEY`, `SLUICE_TEST_S3_SECRET_KEY` and `SLUICE_TEST_S3_BUCKET` name it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

import httpx
import pytest

from sluice.errors import TemporarilyUnavailable
from sluice.object_store import ObjectNotFound, S3ObjectStore, document_prefix, extract_key, original_key
from sluice.settings import ObjectStoreSettings
from sluice.testing.service_process import free_port
from tests.e2e.running import object_store_settings

OTHER = "SLUICE_TEST_S3_ENDPOINT"


@pytest.fixture(scope="module", params=["platform", *(["other"] if OTHER in os.environ else [])])
def settings(request: pytest.FixtureRequest) -> ObjectStoreSettings:
    if request.param == "platform":
        return object_store_settings(request.getfixturevalue("variables"))
    names = ("endpoint", "access_key", "secret_key", "bucket")
    return ObjectStoreSettings(**{name: os.environ[f"SLUICE_TEST_S3_{name.upper()}"] for name in names})  # type: ignore[arg-type] # pydantic makes secrets of them


@pytest.fixture(scope="module")
def store(settings: ObjectStoreSettings) -> S3ObjectStore:
    found = S3ObjectStore(settings)
    found.ensure_bucket()
    return found


@pytest.fixture
def prefix(store: S3ObjectStore) -> Iterator[str]:
    """A folder of this test's own, empty again afterwards."""
    folder = f"test/{uuid4()}/"
    yield folder
    for key in store.keys(folder):
        store.delete(key)


def whole(store: S3ObjectStore, key: str) -> bytes:
    return b"".join(store.pieces(key))


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 20 * 1024**2 + 3])
def test_an_object_comes_back_as_it_was_put_whatever_its_size(store: S3ObjectStore, prefix: str, size: int) -> None:
    content = os.urandom(size)

    store.put(f"{prefix}object", io.BytesIO(content), "application/pdf")

    assert whole(store, f"{prefix}object") == content
    assert store.head(f"{prefix}object").size == size


def test_a_large_object_comes_in_pieces(store: S3ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}object", io.BytesIO(bytes(1024**2)))

    pieces = list(store.pieces(f"{prefix}object"))

    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 256 * 1024


def test_a_body_is_stored_from_its_position_on(store: S3ObjectStore, prefix: str) -> None:
    body = io.BytesIO(b"not this, but this")
    body.seek(10)

    store.put(f"{prefix}object", body)

    assert whole(store, f"{prefix}object") == b"but this"


def test_putting_again_overwrites(store: S3ObjectStore, prefix: str) -> None:
    for content in (b"the first", b"second"):
        store.put(f"{prefix}object", io.BytesIO(content))

    assert whole(store, f"{prefix}object") == b"second"


def test_a_missing_object_is_not_found_before_the_first_piece(store: S3ObjectStore, prefix: str) -> None:
    with pytest.raises(ObjectNotFound):
        store.head(f"{prefix}missing")
    with pytest.raises(ObjectNotFound):
        next(store.pieces(f"{prefix}missing"))


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store: S3ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}object", io.BytesIO(b"content"))

    store.delete(f"{prefix}object")
    store.delete(f"{prefix}object")

    with pytest.raises(ObjectNotFound):
        store.head(f"{prefix}object")


def test_the_keys_below_a_prefix_are_all_there_and_no_others(store: S3ObjectStore, prefix: str) -> None:
    keys = [f"{prefix}{folder}/{n}" for folder in ("a", "ab") for n in range(3)]
    for key in keys:
        store.put(key, io.BytesIO(b"content"))

    assert sorted(store.keys(f"{prefix}a/")) == keys[:3]
    assert sorted(store.keys(prefix)) == keys
    assert store.keys(f"{prefix}missing/") == []


def test_more_keys_than_one_answer_holds_are_all_listed(store: S3ObjectStore, prefix: str) -> None:
    for n in range(1_005):
        store.put(f"{prefix}{n:04}", io.BytesIO(b""))

    assert len(store.keys(prefix)) == 1_005


def test_a_presigned_get_serves_the_bytes_under_the_given_name_and_type(store: S3ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}object", io.BytesIO(b"content"))

    answer = httpx.get(store.presigned_get(f"{prefix}object", 'отчёт "1".pdf', "application/pdf"), timeout=30)

    assert (answer.status_code, answer.content) == (200, b"content")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == (
        "attachment; filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82%20%221%22.pdf"
    )


def test_a_presigned_put_takes_the_announced_bytes(store: S3ObjectStore, prefix: str) -> None:
    answer = httpx.put(store.presigned_put(f"{prefix}object", 7), content=b"content", timeout=30)

    assert answer.is_success
    assert whole(store, f"{prefix}object") == b"content"


@pytest.mark.parametrize(
    "tampered",
    [
        lambda url: url._replace(query=""),
        lambda url: url._replace(path=f"{url.path}-other"),
        lambda url: url._replace(query=url.query.replace("X-Amz-Expires=300", "X-Amz-Expires=86400")),
        lambda url: url._replace(query=f"{url.query[:-4]}0000"),
    ],
    ids=["unsigned", "another key", "a longer time", "another signature"],
)
def test_a_url_that_was_tampered_with_opens_nothing(
    store: S3ObjectStore, prefix: str, tampered: Callable[[SplitResult], SplitResult]
) -> None:
    for key in ("object", "object-other"):
        store.put(f"{prefix}{key}", io.BytesIO(b"content"))
    url = urlsplit(store.presigned_get(f"{prefix}object", "a.txt", "text/plain"))

    answer = httpx.get(tampered(url).geturl(), timeout=30)

    assert answer.is_client_error
    assert answer.content != b"content"


def test_presigned_urls_are_made_for_the_address_that_clients_use(settings: ObjectStoreSettings) -> None:
    public = S3ObjectStore(settings.model_copy(update={"public_endpoint": "https://files.example.org"}))

    assert public.presigned_put("key", 1).startswith("https://files.example.org/")
    assert public.presigned_get("key", "a", "text/plain").startswith("https://files.example.org/")


def test_a_server_that_is_away_is_a_fault_that_passes(settings: ObjectStoreSettings) -> None:
    away = S3ObjectStore(settings.model_copy(update={"endpoint": f"http://127.0.0.1:{free_port()}"}))

    for call in (
        lambda: away.put("key", io.BytesIO(b"")),
        lambda: next(away.pieces("key")),
        lambda: away.head("key"),
        lambda: away.delete("key"),
        lambda: away.keys(""),
    ):
        with pytest.raises(TemporarilyUnavailable) as fault:
            call()
        assert fault.value.code == "object_store_unavailable"


def test_a_wrong_secret_is_a_fault_and_not_a_missing_object(settings: ObjectStoreSettings) -> None:
    stranger = S3ObjectStore(
        ObjectStoreSettings(
            endpoint=settings.endpoint,
            access_key=settings.access_key,
            secret_key="not the secret key",
            bucket=settings.bucket,
        )
    )

    with pytest.raises(TemporarilyUnavailable):
        stranger.head("key")


def test_every_object_of_a_document_lies_below_its_prefix_and_no_other_document_s_does() -> None:
    tenant, document, version = uuid4(), uuid4(), uuid4()
    prefix = document_prefix(tenant, document)

    assert original_key(tenant, document, version, "0" * 64).startswith(prefix)
    assert extract_key(tenant, document, version).startswith(prefix)
    assert not original_key(tenant, uuid4(), version, "0" * 64).startswith(prefix)
    assert not original_key(uuid4(), document, version, "0" * 64).startswith(prefix)
