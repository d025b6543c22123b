"""The API as the command line sees it: typed where it matters, and errors as sentences."""

from __future__ import annotations

import json
import math
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Self

import httpx
from httpx_sse import EventSource, connect_sse

from services.cli.account import Account
from services.cli.exit_codes import CommandError, Exit, exit_for

_PIECE: Final = 256 * 1024
_SERVER_SILENT: Final = 120.0
_PAGE: Final = 100
# A server that restarts is waited for; the job goes on without it.
_OUTAGE: Final = 60.0


class Refused(CommandError):
    """The server answered, and said no."""

    def __init__(self, message: str, http_status: int, problem: dict[str, Any]) -> None:
        super().__init__(message, exit_for(http_status))
        self.http_status = http_status
        self.problem = problem


class Client:
    """One server, one caller. Every method raises `CommandError` with the server's own sentence."""

    def __init__(
        self, account: Account, *, silence: float = _SERVER_SILENT, trust: ssl.SSLContext | bool = True
    ) -> None:
        """`silence`: seconds in which the server may say nothing. `trust`: whose certificates; False: anybody's."""
        self._url = account.url
        self._timeout = httpx.Timeout(silence, connect=min(silence, 5.0))
        self._trust = trust
        self._http = self._opened()
        if account.token:
            self.authorize(account.token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def renew(self) -> None:
        """Leave the connections as they are and open new ones.

        For who goes on after a signal has interrupted a request: it may have come while the pool's lock was being
        taken (httpcore's is a plain `threading.Lock`), and then the next request would wait for it for ever.
        """
        headers, self._http = self._http.headers, self._opened()
        self._http.headers = headers

    def _opened(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=self._timeout, verify=self._trust)

    def authorize(self, token: str) -> None:
        """Call as whoever this token was given to."""
        self._http.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, **content: Any) -> Any:
        """The JSON that the server answers."""
        with self._translated():
            response = self._http.request(method, path, **content)
        _check(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise CommandError(
                f"{self._url} answered something that is not JSON. Is this the URL of Sluice?", Exit.SERVER_ERROR
            ) from error

    def reach(self, path: str) -> None:
        """Ask for a page, whatever its content."""
        with self._translated():
            response = self._http.get(path)
        _check(response)

    def pages(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            asked = {**parameters, "limit": _PAGE, **({"cursor": cursor} if cursor else {})}
            page = self.call("GET", path, params=asked)
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def sign_in(self, email: str, password: str) -> dict[str, Any]:
        """A token and whose it is."""
        answer: dict[str, Any] = self.call("POST", "/api/auth/login", json={"email": email, "password": password})
        return answer

    def source_named(self, name: str, *, create: bool) -> str:
        """The id of the source with this name (or this id), made if that was asked for."""
        for source in self.pages("/api/sources"):
            if name in (source["name"], source["id"]):
                return str(source["id"])
        if not create:
            raise CommandError(f"There is no source {name!r}. Make it: sluice sources create {name!r}", Exit.NOT_FOUND)
        return str(self.call("POST", "/api/sources", json={"name": name})["id"])

    def upload(self, path: Path, source_id: str, tags: list[str], on_bytes: Callable[[int], None]) -> dict[str, Any]:
        """Upload one file; `on_bytes` hears of each piece that was sent."""
        with path.open("rb") as file:
            files = {"file": (path.name, _Counted(file, on_bytes))}
            answer: dict[str, Any] = self.call(
                "POST", "/api/documents", data={"source_id": source_id, "tags": tags}, files=files
            )
        return answer

    def events(
        self, method: str, path: str, *, within: float = math.inf, **content: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Server-sent events as they arrive: name and data; all of them `within` so many seconds."""
        ends = time.monotonic() + within
        with self._translated(), connect_sse(self._http, method, path, **content) as source:
            _check_stream(source)
            for event in source.iter_sse():
                if time.monotonic() > ends:
                    raise CommandError(f"{self._url} had not said all after {within:.0f} s.", Exit.TIMED_OUT)
                # The heartbeat of a quiet stream is a comment, which arrives here as an event without data.
                if event.data:
                    yield event.event, json.loads(event.data)

    def watch_job(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """A job's events until it has ended, whatever happens to the connection meanwhile."""
        silent_since = time.monotonic()
        name = ""
        while name != "job.end":
            try:
                for name, data in self.events("GET", f"/api/jobs/{job_id}/events"):
                    silent_since = time.monotonic()
                    yield name, data
            except CommandError as error:
                lasting = time.monotonic() - silent_since > _OUTAGE
                if lasting or error.status not in (Exit.UNREACHABLE, Exit.TIMED_OUT, Exit.SERVER_ERROR):
                    raise
            if name != "job.end":
                time.sleep(1)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise CommandError(f"{self._url} did not answer in time.", Exit.TIMED_OUT) from error
        except httpx.TransportError as error:
            raise CommandError(
                f"{self._url} does not answer ({error}). Is the platform up? See: sluice status", Exit.UNREACHABLE
            ) from error


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(_PIECE if size < 0 else min(size, _PIECE))
        self._on_bytes(len(piece))
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def _check_stream(source: EventSource) -> None:
    if not source.response.is_success:
        source.response.read()
        _check(source.response)


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    if response.has_redirect_location:
        raise Refused(f"The server sends us to {response.headers['Location']}.", response.status_code, {})
    try:
        problem = response.json()
        sentence = f"{problem['detail']} [{problem['code']}, request {problem['request_id']}]"
    except (ValueError, KeyError, TypeError):
        problem = {}
        sentence = f"The server answered {response.status_code} {response.reason_phrase}."
    raise Refused(sentence, response.status_code, problem)
