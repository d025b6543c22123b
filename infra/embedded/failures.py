"""Why the platform cannot do what was asked."""

from __future__ import annotations


class PlatformError(Exception):
    """The platform cannot start or stop; the message says which part, why, and what to do."""


class PartMissingError(PlatformError):
    """A program that a part needs is not installed."""


class PortTakenError(PlatformError):
    """Another process listens on a port that belongs to a part."""


class PartFailedError(PlatformError):
    """A part ended, or did not become ready in time."""
