"""The object store: originals and extracted text, in any server that speaks S3."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote
from uuid import UUID

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sluice.errors import NotFound, TemporarilyUnavailable
from sluice.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PRESIGNED_SECONDS: Final = 300
_PIECE: Final = 256 * 1024
# The library's default holds ten parts of 8 MiB in memory for each upload; the server is near, one is as fast.
_ONE_PART_AT_A_TIME: Final = TransferConfig(use_threads=False)
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class ObjectNotFound(NotFound):
    """The object store has no such object."""

    code = "object_not_found"


@dataclass(frozen=True)
class StoredObject:
    """What the store says of an object without handing it out."""

    size: int


@dataclass(frozen=True)
class ListedObject:
    """An object in a listing."""

    key: str
    modified_at: datetime


class ObjectStore(Protocol):
    """Bytes by key. Every method raises `TemporarilyUnavailable` while the store does not answer."""

    def put(self, key: str, body: IO[bytes], content_type: str = "application/octet-stream") -> None:
        """Store the bytes from the body's position to its end, whole or not at all."""

    def pieces(self, key: str) -> Iterator[bytes]:
        """The object's bytes, piece by piece; `ObjectNotFound` before the first."""

    def head(self, key: str) -> StoredObject:
        """What is known of the object; `ObjectNotFound` when there is none."""

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with the prefix."""

    def page(self, prefix: str, after: str | None, limit: int = 1000) -> tuple[list[ListedObject], str | None]:
        """Up to `limit` objects below the prefix, by their keys, and after which key the next page begins."""

    def presigned_get(self, key: str, file_name: str, content_type: str) -> str:
        """A URL by which anyone may download the object for five minutes, under this name."""

    def presigned_put(self, key: str, size: int) -> str:
        """A URL by which anyone may upload exactly `size` bytes to this key for five minutes."""


def original_key(tenant_id: UUID, document_id: UUID, version_id: UUID, content_hash: str) -> str:
    """Where an uploaded file lives."""
    return f"{_version_prefix(tenant_id, document_id, version_id)}{content_hash}"


def extract_key(tenant_id: UUID, document_id: UUID, version_id: UUID) -> str:
    """Where the text extracted from it lives (JSON lines, gzip)."""
    return f"{_version_prefix(tenant_id, document_id, version_id)}extract.jsonl.gz"


def tenant_prefix(tenant_id: UUID) -> str:
    """What all keys of a tenant begin with."""
    return f"tenant/{tenant_id}/"


def document_prefix(tenant_id: UUID, document_id: UUID) -> str:
    """What the keys of all versions of a document begin with."""
    return f"{tenant_prefix(tenant_id)}{document_id}/"


def _version_prefix(tenant_id: UUID, document_id: UUID, version_id: UUID) -> str:
    return f"{document_prefix(tenant_id, document_id)}{version_id}/"


class S3ObjectStore:
    """An S3 server. Clients that follow presigned URLs may know it by another host than we do."""

    def __init__(self, settings: ObjectStoreSettings) -> None:
        self._bucket = settings.bucket
        self._client = _client(settings, settings.endpoint)
        # The host is part of the signature, so it must be the one that the client will use.
        self._public = _client(settings, settings.public_endpoint or settings.endpoint)

    def ensure_bucket(self) -> None:
        """Make the bucket unless it exists."""
        with _translated():
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if _code(error) not in _MISSING | {"NoSuchBucket"}:
                    raise
                self._client.create_bucket(Bucket=self._bucket)

    def put(self, key: str, body: IO[bytes], content_type: str = "application/octet-stream") -> None:
        """Store the bytes; large ones in parts, which the server joins at the end or drops."""
        with _translated(key):
            kept_open = io.BufferedReader(_KeptOpen(body), _PIECE)
            self._client.upload_fileobj(
                kept_open, self._bucket, key, ExtraArgs={"ContentType": content_type}, Config=_ONE_PART_AT_A_TIME
            )

    def pieces(self, key: str) -> Iterator[bytes]:
        """The object's bytes, 256 KiB at a time."""
        with _translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(_PIECE)

    def head(self, key: str) -> StoredObject:
        """The object's size."""
        with _translated(key):
            return StoredObject(size=self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"])

    def delete(self, key: str) -> None:
        """Remove the object."""
        with _translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def keys(self, prefix: str) -> list[str]:
        """All keys below the prefix, whatever their number."""
        with _translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def page(self, prefix: str, after: str | None, limit: int = 1000) -> tuple[list[ListedObject], str | None]:
        """A page of a listing; a server may make it shorter than `limit`."""
        with _translated(prefix):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, MaxKeys=limit, StartAfter=after or ""
            )
        found = [ListedObject(entry["Key"], entry["LastModified"]) for entry in answer.get("Contents", [])]
        return found, found[-1].key if found and answer["IsTruncated"] else None

    def presigned_get(self, key: str, file_name: str, content_type: str) -> str:
        """A download URL, signed for the public endpoint."""
        return self._public.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._bucket,
                "Key": key,
                "ResponseContentDisposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
                "ResponseContentType": content_type,
            },
            ExpiresIn=PRESIGNED_SECONDS,
        )

    def presigned_put(self, key: str, size: int) -> str:
        """An upload URL, signed for the public endpoint and this length."""
        return self._public.generate_presigned_url(
            "put_object",
            Params={"Bucket": self._bucket, "Key": key, "ContentLength": size},
            ExpiresIn=PRESIGNED_SECONDS,
        )


class _KeptOpen(io.RawIOBase):
    """A body that stays open when boto3 closes what it was given: its owner may want to send it again."""

    def __init__(self, body: IO[bytes]) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._body.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._body.seek(offset, whence)

    def tell(self) -> int:
        return self._body.tell()


def _client(settings: ObjectStoreSettings, endpoint: str) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key.get_secret_value(),
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 3},
            # The default adds checksum trailers that S3 servers other than AWS do not all read.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated(key: str = "") -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if _code(error) in _MISSING:
            raise ObjectNotFound(f"The object store has no {key}.") from error
        raise TemporarilyUnavailable(
            f"The object store refused: {_code(error)}.", code="object_store_unavailable"
        ) from error
    except (BotoCoreError, OSError) as error:
        raise TemporarilyUnavailable("The object store does not answer.", code="object_store_unavailable") from error
