"""What can go wrong, said once. Each edge decides what an error means there (an HTTP status, a retry, an exit code)."""

from __future__ import annotations

from typing import Any

from sluice.storable import made_storable


class SluiceError(Exception):
    """Something went wrong."""

    # The class docstring is the default message; `code` is stable and listed in docs/api.md.
    code = "error"

    def __init__(self, detail: str | None = None, *, code: str | None = None, **facts: Any) -> None:
        # Parsers and other services have their say in it, and it is stored.
        self.detail = made_storable(detail or (type(self).__doc__ or "").strip())
        self.code = code or type(self).code
        self.facts = facts
        super().__init__(self.detail)


class NotFound(SluiceError):
    """No such thing here."""

    code = "not_found"


class Conflict(SluiceError):
    """The thing is not in a state that allows this."""

    code = "conflict"


class Invalid(SluiceError):
    """The request makes no sense as it stands."""

    code = "invalid"


class TooLarge(SluiceError):
    """The upload is larger than this installation accepts."""

    code = "too_large"


class UnsupportedType(SluiceError):
    """Files of this type cannot be read here."""

    code = "unsupported_type"


class NotAuthenticated(SluiceError):
    """Sign in first: the access token is missing, expired or not ours."""

    code = "not_authenticated"


class NotAllowed(SluiceError):
    """Your role does not allow this."""

    code = "not_allowed"


class TooManyRequests(SluiceError):
    """Too many requests; wait and try again."""

    code = "too_many_requests"

    def __init__(self, detail: str | None = None, *, retry_after: float = 1.0, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class TemporarilyUnavailable(SluiceError):
    """A part that this needs does not answer right now."""

    code = "temporarily_unavailable"

    def __init__(
        self, detail: str | None = None, *, retry_after: float = 2.0, code: str | None = None, **facts: Any
    ) -> None:
        super().__init__(detail, code=code, **facts)
        self.retry_after = retry_after


class DocumentUnreadable(SluiceError):
    """The file cannot be turned into text, now or later: no retry will help."""

    code = "unreadable"
