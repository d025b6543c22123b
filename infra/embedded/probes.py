"""Readiness: each probe speaks the server's own protocol once, and raises `NotReady` until that works."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp as amqp_client
import httpx
import psycopg
import redis

Probe = Callable[[], None]
_SECONDS = 2


class NotReady(Exception):
    """The server does not do its work yet; the message says how it answered."""


def http(url: str) -> Probe:
    """Ready when a GET of the URL succeeds."""

    def probe() -> None:
        try:
            answer = httpx.get(url, timeout=_SECONDS)
        except httpx.TransportError as error:
            raise NotReady(f"{url}: {error}") from error
        if not answer.is_success:
            raise NotReady(f"{url} answers {answer.status_code}: {answer.text[:500]}")

    return probe


def postgres(conninfo: str) -> Probe:
    """Ready when a query is answered."""

    def probe() -> None:
        try:
            with psycopg.connect(conninfo, connect_timeout=_SECONDS) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            raise NotReady(str(error)) from error

    return probe


def redis_server(url: str) -> Probe:
    """Ready when a ping is answered."""

    def probe() -> None:
        try:
            with redis.Redis.from_url(url, socket_timeout=_SECONDS) as client:
                client.ping()
        except redis.RedisError as error:
            raise NotReady(str(error)) from error

    return probe


def amqp(url: str) -> Probe:
    """Ready when a channel can be opened in the virtual host."""

    def probe() -> None:
        with _channel(url):
            return

    return probe


def consumed(url: str, queue: str) -> Probe:
    """Ready when somebody consumes the queue."""

    def probe() -> None:
        with _channel(url) as channel:
            consumers = channel.queue_declare(queue, passive=True).consumer_count
        if not consumers:
            raise NotReady(f"nobody consumes {queue} yet")

    return probe


@contextmanager
def _channel(url: str) -> Iterator[Any]:
    where = urlsplit(url)
    try:
        with amqp_client.Connection(
            host=f"{where.hostname}:{where.port}",
            userid=where.username,
            password=where.password,
            virtual_host=unquote(where.path[1:]),
            connect_timeout=_SECONDS,
            read_timeout=_SECONDS,
        ) as connection:
            yield connection.channel()
    except (OSError, amqp_client.AMQPError) as error:
        raise NotReady(str(error)) from error


def s3(endpoint: str, access_key: str, secret_key: str, bucket: str) -> Probe:
    """Ready when the bucket answers a signed request."""

    def probe() -> None:
        # Slow to import, and not needed until the server has been started.
        import boto3  # noqa: PLC0415 - see above
        from botocore.config import Config  # noqa: PLC0415 - see above
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see above

        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=_SECONDS, retries={"total_max_attempts": 1}),
        )
        try:
            client.head_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as error:
            raise NotReady(str(error)) from error

    return probe


def epmd(host: str, port: int) -> Probe:
    """Ready when Erlang's port mapper lists its names."""

    def probe() -> None:
        try:
            with socket.create_connection((host, port), timeout=_SECONDS) as connection:
                connection.sendall(b"\x00\x01n")
                if not connection.recv(4):
                    raise NotReady("epmd closed the connection")
        except OSError as error:
            raise NotReady(str(error)) from error

    return probe
