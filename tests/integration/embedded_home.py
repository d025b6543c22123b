"""What tests do to a platform and its stores from outside."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import boto3
import psutil
import psycopg
import redis
from botocore.config import Config
from kombu.connection import Connection
from qdrant_client import QdrantClient, models

from infra.embedded.platform import Platform

ROOT = Path(__file__).parents[2]
STORES = ("postgres", "redis", "rabbitmq", "s3", "qdrant")


def up_command(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "infra.embedded", "up", "--only-stores", *arguments],
        cwd=ROOT,
        env=os.environ | {"SLUICE_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )


def end(home: Path) -> None:
    if home.exists():
        Platform(home, ROOT).down()
    assert processes_of(home) == []
    # PostgreSQL's folder belongs to another user when the tests run as root; pytest would leave it.
    shutil.rmtree(home, ignore_errors=True)


def write_to_every_store(variables: dict[str, str]) -> None:
    with psycopg.connect(plain(variables["SLUICE_DATABASE_OWNER_URL"])) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'kept' AS word")
    with Connection(variables["SLUICE_BROKER_URL"]) as broker:
        quorum_queue(broker).put("kept")
    s3(variables).put_object(Bucket=variables["SLUICE_S3_BUCKET"], Key="a/b", Body=b"kept")
    with closing(QdrantClient(url=variables["SLUICE_QDRANT_URL"])) as qdrant:
        qdrant.create_collection("kept", vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT))
        qdrant.upsert("kept", [models.PointStruct(id=1, vector=[1.0], payload={"word": "kept"})])
    assert redis.Redis.from_url(variables["SLUICE_REDIS_URL"]).set("a", "b")


def read_from_every_store(variables: dict[str, str]) -> dict[str, str]:
    with psycopg.connect(plain(variables["SLUICE_DATABASE_OWNER_URL"])) as connection:
        (word,) = connection.execute("SELECT word FROM kept").fetchone() or ("",)
    with Connection(variables["SLUICE_BROKER_URL"]) as broker:
        message = quorum_queue(broker).get(timeout=10)
        message.ack()
    held = s3(variables).get_object(Bucket=variables["SLUICE_S3_BUCKET"], Key="a/b")
    with closing(QdrantClient(url=variables["SLUICE_QDRANT_URL"])) as qdrant:
        (point,) = qdrant.retrieve("kept", [1])
    return {
        "postgres": word,
        "rabbitmq": message.payload,
        "s3": held["Body"].read().decode(),
        "qdrant": (point.payload or {})["word"],
    }


def quorum_queue(broker: Connection) -> Any:
    return broker.SimpleQueue("kept", queue_args={"x-queue-type": "quorum"})


def s3(variables: dict[str, str]) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=variables["SLUICE_S3_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=variables["SLUICE_S3_ACCESS_KEY"],
        aws_secret_access_key=variables["SLUICE_S3_SECRET_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    )


def plain(url: str) -> str:
    """The URL as psycopg reads it, without SQLAlchemy's driver."""
    return url.replace("postgresql+psycopg", "postgresql")


@dataclass(frozen=True)
class Seen:
    """A process, as it was in one moment."""

    pid: int
    name: str
    arguments: str


def processes_of(home: Path) -> list[Seen]:
    """Every process that belongs to this home, by its environment, its folder or its arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            seen = Seen(process.pid, process.name(), " ".join(process.cmdline()))
            belongs = process.environ().get("SLUICE_EMBEDDED_HOME") == str(home)
            belongs |= process.cwd().startswith(f"{home}/") or f"{home}/" in seen.arguments
            if belongs and process.status() != psutil.STATUS_ZOMBIE:
                found.append(seen)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + 60
    while not condition():
        assert monotonic() < deadline, "it did not happen within a minute"
        sleep(0.05)


def reachable_by_all(*paths: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for path in paths for folder in path.parents)
