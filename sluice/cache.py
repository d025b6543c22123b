"""Redis: counters and flags that may be lost at any time without harm."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import redis

from sluice.errors import TemporarilyUnavailable
from sluice.settings import RedisSettings

_STOP_SECONDS: Final = 600


class Cache:
    """A Redis server shared by all processes of the API."""

    def __init__(self, settings: RedisSettings) -> None:
        self._redis = redis.Redis.from_url(
            settings.url.get_secret_value(),
            socket_timeout=2,
            socket_connect_timeout=2,
            socket_keepalive=True,
            health_check_interval=30,
        )

    def ping(self) -> None:
        """Return when Redis answers; `TemporarilyUnavailable` otherwise."""
        try:
            self._redis.ping()
        except redis.RedisError as error:
            raise TemporarilyUnavailable("Redis does not answer.", code="cache_unavailable") from error

    def ask_to_stop(self, tenant_id: UUID, user_id: UUID, message_id: UUID) -> None:
        """Ask whichever process writes this answer to stop."""
        try:
            self._redis.set(_stop_key(tenant_id, user_id, message_id), 1, ex=_STOP_SECONDS)
        except redis.RedisError as error:
            raise TemporarilyUnavailable("Redis does not answer.", code="cache_unavailable") from error

    def should_stop(self, tenant_id: UUID, user_id: UUID, message_id: UUID) -> bool:
        """Whether somebody asked for this answer to stop; no when Redis does not answer."""
        try:
            return bool(self._redis.exists(_stop_key(tenant_id, user_id, message_id)))
        except redis.RedisError:
            return False


def _stop_key(tenant_id: UUID, user_id: UUID, message_id: UUID) -> str:
    return f"tenant:{tenant_id}:user:{user_id}:stop:{message_id}"
