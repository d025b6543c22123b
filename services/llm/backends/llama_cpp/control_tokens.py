"""Names of control tokens in what people and documents say. Pure.

A model is trained to take `<|im_end|>` for the end of a turn. Where a document says that, it must stay text: otherwise
whoever writes a document ends the system's turn and begins one of his own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sluice.wire.completions import ChatMessage

_SHORTEST = 2


class Quoting:
    """Takes the power from the names: a space behind their first character, and they are a few ordinary tokens."""

    def __init__(self, names: Sequence[str]) -> None:
        told = sorted((name for name in names if len(name) >= _SHORTEST), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, told))) if told else None

    def quoted(self, text: str) -> str:
        """The text as it may stand in a prompt."""
        return text if self._names is None else self._names.sub(_apart, text)

    def messages(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The messages, each with such a text."""
        return [message.model_copy(update={"content": self.quoted(message.content)}) for message in messages]


def _apart(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"
