"""What the exit status of `sluice` says, for scripts; `docs/api.md` has the table for people."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit status of a command."""

    OK = 0
    FAILED = 1  # it ran, and something that it was to do failed
    USAGE = 2  # wrong options or arguments, or a request that the API finds invalid
    NOT_CONFIGURED = 3  # no server is known: sign in first
    NOT_SIGNED_IN = 4  # no token, an expired one, or a role that may not do this
    UNREACHABLE = 5  # the server does not answer
    TOO_MANY_REQUESTS = 6
    TIMED_OUT = 7
    SERVER_ERROR = 8
    NOT_FOUND = 9
    CONFLICT = 10


class CommandError(Exception):
    """A command that cannot go on: a sentence for people, a status for scripts."""

    def __init__(self, message: str, status: Exit) -> None:
        super().__init__(message)
        self.status = status


def exit_for(http_status: int) -> Exit:
    """The exit status that stands for an HTTP status."""
    known = {
        400: Exit.USAGE,
        401: Exit.NOT_SIGNED_IN,
        403: Exit.NOT_SIGNED_IN,
        404: Exit.NOT_FOUND,
        409: Exit.CONFLICT,
        413: Exit.USAGE,
        415: Exit.USAGE,
        422: Exit.USAGE,
        429: Exit.TOO_MANY_REQUESTS,
    }
    return known.get(http_status, Exit.SERVER_ERROR)
