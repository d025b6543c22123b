"""A server with OpenAI's chat completions, or GigaChat's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from services.llm.backends.base import Facts, Piece, Prompt
from services.llm.backends.remote.breaker import CircuitBreaker
from services.llm.backends.remote.server import RemoteServer, unavailable
from services.llm.backends.remote.wire import body_of, chunk_of, reason_of
from services.llm.candidate import Candidate
from sluice.environment import SettingsError
from sluice.settings import LlmServiceSettings
from sluice.wire.asgi import Malformed
from sluice.wire.completions import FinishReason

_DATA: Final = "data:"
_DONE: Final = "[DONE]"
# A prompt's tokens are the server's business; for the queue, a token is taken for this many characters.
_CHARACTERS_PER_TOKEN: Final = 3


class RemoteBackend:
    """Passes conversations on."""

    name = "remote"
    responsive = True

    def __init__(self, settings: LlmServiceSettings, breaker: CircuitBreaker | None = None) -> None:
        self.slots = settings.sequences
        self.context_tokens = settings.max_prompt_tokens
        self._settings = settings
        self._server = RemoteServer(settings, breaker or CircuitBreaker(settings.remote_breaker_failures))

    async def tokens(self, text: str) -> list[str]:  # noqa: ARG002 - of the protocol
        """Not known here."""
        raise Malformed("The model is remote, and its tokens are not known here.", code="unsupported_parameter")

    async def prepare(self, prompt: Prompt) -> RemoteAnswer:
        """Put the request into the server's words; `Malformed` if it has none for it."""
        count = sum(len(message.content) for message in prompt.messages) // _CHARACTERS_PER_TOKEN
        if count > self.context_tokens:
            raise Malformed(
                f"The prompt has about {count} tokens; {self.context_tokens} are accepted.",
                code="context_length_exceeded",
                param="messages",
            )
        return RemoteAnswer(self._server, body_of(prompt, self._settings), count, prompt.max_tokens)

    def stats(self) -> dict[str, float]:
        """Failures, and whether the server is left alone now."""
        return self._server.stats()

    async def close(self) -> None:
        """Give up the connections."""
        await self._server.close()


class RemoteAnswer:
    """A request in the server's words."""

    def __init__(self, server: RemoteServer, body: dict[str, Any], prompt_tokens: int, max_tokens: int | None) -> None:
        self._server = server
        self._body = body
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens

    async def pieces(self) -> AsyncGenerator[Piece | Facts, None]:
        """The answer as the server streams it. Closing the generator closes the connection."""
        reason: FinishReason | None = None
        async with self._server.lines(self._body) as lines:
            async for line in lines:
                if not line.startswith(_DATA):
                    continue
                content = line.removeprefix(_DATA).strip()
                if content == _DONE:
                    break
                chunk = chunk_of(content)
                if chunk is None:
                    raise unavailable("The remote model sent what is no chunk of an answer.")
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield Piece(choice.delta.content, tokens=1)
                    reason = reason_of(choice.finish_reason) or reason
                if chunk.usage is not None:
                    yield Facts(usage=chunk.usage)
            if reason is None:
                raise unavailable("The remote model's answer ended in the middle.")
        yield Facts(finish_reason=reason)


def candidate(settings: LlmServiceSettings) -> Candidate:
    """The server that the settings name."""
    if settings.remote_url is None or settings.remote_model is None:
        raise SettingsError("SLUICE_LLM_BACKEND is remote: set SLUICE_LLM_REMOTE_URL and SLUICE_LLM_REMOTE_MODEL.")
    if settings.remote_kind == "gigachat" and (settings.remote_auth_url is None or settings.remote_key is None):
        raise SettingsError(
            "SLUICE_LLM_REMOTE_KIND is gigachat: set SLUICE_LLM_REMOTE_AUTH_URL and SLUICE_LLM_REMOTE_KEY."
        )
    return Candidate(f"remote:{settings.remote_model}", lambda: RemoteBackend(settings))
