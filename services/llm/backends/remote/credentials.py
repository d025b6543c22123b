"""What a remote server wants to see before it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol
from uuid import uuid4

import httpx

from sluice.errors import TemporarilyUnavailable

# A token is renewed before it runs out in the middle of a request.
_MARGIN_SECONDS: Final = 60.0
_MILLISECONDS: Final = 1000


class Credentials(Protocol):
    """Makes the header of a request."""

    async def header(self) -> dict[str, str]:
        """The header `Authorization`, if there is one."""

    def refused(self, header: dict[str, str]) -> None:
        """The server did not accept this header, which may not be the last one any more."""


class ApiKey:
    """A key that never changes; or none."""

    def __init__(self, key: str | None) -> None:
        self._header = {} if key is None else {"authorization": f"Bearer {key}"}

    async def header(self) -> dict[str, str]:
        """Always the same."""
        return self._header

    def refused(self, header: dict[str, str]) -> None:
        """There is no other key."""


class GigaChatToken:
    """GigaChat's OAuth: a key buys a token of 30 minutes, which is renewed in time and after a refusal."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, key: str, scope: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._http = http
        self._url = url
        self._key = key
        self._scope = scope
        self._clock = clock
        self._header: dict[str, str] = {}
        self._expires_at = 0.0
        self._renewal: asyncio.Task[None] | None = None

    async def header(self) -> dict[str, str]:
        """With a token that is good for a while; one purchase, or its failure, is for all that wait."""
        if self._expires_at - self._clock() < _MARGIN_SECONDS:
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew())
                self._renewal.add_done_callback(self._renewed)
            # Whoever leaves does not end it for the others.
            await asyncio.shield(self._renewal)
        return self._header

    def refused(self, header: dict[str, str]) -> None:
        """Buy another before the next request, unless that has been done since."""
        if header == self._header:
            self._expires_at = 0.0

    def _renewed(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            # Seen, also when nobody waits for it any more.
            renewal.exception()

    async def _renew(self) -> None:
        headers = {"authorization": f"Basic {self._key}", "rquid": str(uuid4()), "accept": "application/json"}
        response = await self._http.post(self._url, data={"scope": self._scope}, headers=headers)
        if response.status_code in {httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise TemporarilyUnavailable(
                f"GigaChat's sign-in answered {response.status_code}: look at SLUICE_LLM_REMOTE_KEY and "
                "SLUICE_LLM_REMOTE_SCOPE.",
                code="remote_unauthorized",
            )
        response.raise_for_status()
        try:
            content = response.json()
            token, expires_at = str(content["access_token"]), float(content["expires_at"]) / _MILLISECONDS
        except (ValueError, KeyError, TypeError) as error:
            raise TemporarilyUnavailable(
                "GigaChat's sign-in answered without a token.", code="remote_broken"
            ) from error
        self._header, self._expires_at = {"authorization": f"Bearer {token}"}, expires_at
