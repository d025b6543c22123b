"""Checks of the way in: does it answer, what is it, may we come in."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final

from services.cli.client import Refused
from services.cli.exit_codes import CommandError, Exit
from services.cli.smoke.visit import Json, Visit

_LOOK_SECONDS: Final = 1.0


def healthz(visit: Visit) -> Json:
    """The platform answers, at the latest when we have waited as long as we were told to."""
    deadline = time.monotonic() + visit.wait
    while True:
        try:
            visit.client.reach("/healthz")
        except CommandError as error:
            if time.monotonic() >= deadline or not _may_be_coming_up(error):
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return {}


def version(visit: Visit) -> Json:
    """What is running."""
    found = visit.client.call("GET", "/api/version")
    return {"version": found["version"], "commit": found["commit"]}


def login(visit: Visit) -> Json:
    """The password opens the door, and the token that it gives is accepted."""
    granted = visit.client.sign_in(visit.email, visit.password)
    visit.client.authorize(granted["access_token"])
    visit.client.call("GET", "/api/sources", params={"limit": 1})
    visit.signed_in = True
    return {"role": granted["role"]}


def _may_be_coming_up(error: CommandError) -> bool:
    if isinstance(error, Refused):
        return error.http_status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE)
    return error.status in (Exit.UNREACHABLE, Exit.TIMED_OUT)
