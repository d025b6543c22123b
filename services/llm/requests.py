"""What a request asks for: which of its members are understood, and what the model is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from services.llm.backends.base import Prompt, Sampling
from services.llm.faces import Face
from services.llm.generation import Generation
from services.llm.host import ServedModel
from services.llm.metrics import LlmMetrics
from sluice.wire.asgi import Malformed
from sluice.wire.completions import ChatMessage, GenerationParameters

# Members of OpenAI's requests that change nothing when they have this value.
_WITHOUT_EFFECT: Final[Mapping[str, Any]] = {
    "audio": None,
    "best_of": 1,
    "echo": False,
    "function_call": None,
    "functions": [],
    "guided_json": None,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "n": 1,
    "suffix": None,
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": 0,
}
# They are about accounts and storage, not about the answer.
_NOT_ABOUT_THE_ANSWER: Final = {
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}


def require_understood(content: Mapping[str, Any], kind: type[GenerationParameters]) -> None:
    """`Malformed` names a member that would have to be ignored: that would answer another request than was made."""
    for name, value in content.items():
        if name in kind.model_fields or name in _NOT_ABOUT_THE_ANSWER or value is None:
            continue
        if name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name]:
            raise Malformed(f"{name!r} is not supported by this service.", code="unsupported_parameter", param=name)


class Task:
    """An `AnswerTask`: a request, and the shape of its answer."""

    def __init__(
        self,
        wanted: GenerationParameters,
        messages: Sequence[ChatMessage],
        face: Callable[[Generation], Face],
        metrics: LlmMetrics,
        *,
        raw: bool = False,
    ) -> None:
        """`raw`: the one message is a text to go on from."""
        self._wanted = wanted
        self._messages = messages
        self._face = face
        self._metrics = metrics
        self._raw = raw

    async def generation(self, model: ServedModel) -> tuple[Generation, Face]:
        """Have the model read the request; `Malformed` if it is not in order."""
        answer = await model.backend.prepare(self._prompt())
        generation = Generation(
            model.name,
            answer,
            most_tokens=model.backend.context_tokens,
            stop=self._wanted.stop,
            metrics=self._metrics,
        )
        return generation, self._face(generation)

    def _prompt(self) -> Prompt:
        wanted = self._wanted
        return Prompt(
            self._messages,
            wanted.documents,
            raw=self._raw,
            sampling=_sampling(wanted),
            max_tokens=wanted.token_limit,
            response_format=wanted.response_format,
            grammar=wanted.grammar,
        )


def _sampling(wanted: GenerationParameters) -> Sampling:
    """What the request says; where it says nothing, what `Sampling` says."""
    names = [each.name for each in fields(Sampling)]
    return Sampling(**{name: said for name in names if (said := getattr(wanted, name)) is not None})
