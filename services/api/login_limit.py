"""A brake on guessing passwords."""

from __future__ import annotations

import time

from limits import parse
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
from redis.exceptions import RedisError

from sluice.errors import TooManyRequests
from sluice.settings import AuthSettings, RedisSettings
from sluice.telemetry import logger

log = logger()


class LoginLimit:
    """So many sign-ins a minute for one e-mail address from one network address, over all processes."""

    def __init__(self, auth: AuthSettings, redis: RedisSettings) -> None:
        self._limit = parse(auth.login_limit)
        self._shared = MovingWindowRateLimiter(storage_from_string(redis.url.get_secret_value()))
        self._own = MovingWindowRateLimiter(storage_from_string("memory://"))

    def check(self, email: str, address: str) -> None:
        """Count an attempt; `TooManyRequests`, with the seconds to wait, when there were too many."""
        limiter = self._shared
        try:
            allowed = limiter.hit(self._limit, "login", email.lower(), address)
        except RedisError:
            # Without Redis each process counts alone: a weaker brake, but people can still sign in.
            log.warning("login_limit.redis_away")
            limiter = self._own
            allowed = limiter.hit(self._limit, "login", email.lower(), address)
        if not allowed:
            reset = limiter.get_window_stats(self._limit, "login", email.lower(), address).reset_time
            wait = max(reset - time.time(), 1.0)
            raise TooManyRequests(f"Too many attempts to sign in: wait {wait:.0f} seconds.", retry_after=wait)
