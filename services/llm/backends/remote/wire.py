"""OpenAI's words, and GigaChat's, for a request and for the chunks of an answer. Pure."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from services.llm.backends.base import Prompt, Sampling
from services.llm.backends.remote.server import unavailable
from sluice.settings import LlmServiceSettings
from sluice.wire.asgi import Malformed
from sluice.wire.completions import FinishReason, Usage

# OpenAI's word, and GigaChat's, for an answer that its server does not let pass.
_WITHHELD: Final = {"content_filter", "blacklist"}


class Delta(BaseModel):
    """What a chunk adds."""

    model_config = ConfigDict(extra="ignore")

    content: str | None = None


class Choice(BaseModel):
    """The one answer, in a chunk."""

    model_config = ConfigDict(extra="ignore")

    delta: Delta = Delta()
    finish_reason: str | None = None


class Chunk(BaseModel):
    """One `data:` of an answer."""

    model_config = ConfigDict(extra="ignore")

    choices: list[Choice] = []
    usage: Usage | None = None


def chunk_of(content: str) -> Chunk | None:
    """The chunk, or None if it is none."""
    try:
        return Chunk.model_validate_json(content)
    except ValidationError:
        return None


def reason_of(said: str | None) -> FinishReason | None:
    """Why the answer ended, if this chunk says it; an error where what there is of it is no answer."""
    if said is None:
        return None
    if said == "error":
        raise unavailable("The remote model failed in the middle of its answer.")
    if said in _WITHHELD:
        raise Malformed(f"The remote model withholds its answer: {said}.", code="remote_refused", param="messages")
    return "length" if said == "length" else "stop"


def body_of(prompt: Prompt, settings: LlmServiceSettings) -> dict[str, Any]:
    """The request; `Malformed` if the server has no words for a part of it."""
    sampling, usual = prompt.sampling, Sampling()
    local = [name for name in ("top_k", "min_p", "repeat_penalty") if getattr(sampling, name) != getattr(usual, name)]
    if prompt.grammar is not None:
        local.append("grammar")
    if prompt.raw or local:
        what = local[0] if local else "prompt"
        raise Malformed(f"The remote model does not take {what}.", code="unsupported_parameter", param=what)
    body: dict[str, Any] = {
        "model": settings.remote_model,
        "messages": [message.model_dump() for message in prompt.messages],
        "stream": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    form = prompt.response_format
    optional = {
        "max_tokens": prompt.max_tokens,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        "response_format": form.model_dump(by_alias=True, exclude_none=True) if form else None,
    }
    if settings.remote_kind == "openai":
        body["stream_options"] = {"include_usage": True}
    elif unknown := [name for name, value in optional.items() if value is not None and name != "max_tokens"]:
        raise Malformed(f"GigaChat does not take {unknown[0]}.", code="unsupported_parameter", param=unknown[0])
    return body | {name: value for name, value in optional.items() if value is not None}
