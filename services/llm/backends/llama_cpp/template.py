"""A conversation as the one text that the model was trained to continue: the chat template of its file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.llm.backends.llama_cpp.errors import ModelUnusable
from sluice.wire.asgi import Malformed
from sluice.wire.completions import ChatMessage

_WITHOUT_SYSTEM = "system"


class ChatTemplate:
    """Renders conversations. The template comes from a file, so it runs in a sandbox."""

    def __init__(self, source: str, *, begin_token: str, end_token: str) -> None:
        """`ModelUnusable` if the template is none."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals.update(raise_exception=_refuse, strftime_now=_now)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelUnusable(f"The model's chat template is wrong: {error}.") from error
        self._tokens = {"bos_token": begin_token, "eos_token": end_token}

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """The text up to where the answer begins; `Malformed` if the template does not take such a conversation."""
        try:
            return self._rendered([_turn(message) for message in messages])
        except TemplateError as error:
            # Gemma's and some others know no system messages: what it says goes before the first question.
            merged = _without_system(messages)
            if merged is None:
                raise _refusal(error) from error
        try:
            return self._rendered(merged)
        except TemplateError as error:
            raise _refusal(error) from error

    def _rendered(self, turns: list[dict[str, str]]) -> str:
        try:
            return self._template.render(messages=turns, add_generation_prompt=True, **self._tokens)
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise TemplateError(str(error)) from error


def _turn(message: ChatMessage) -> dict[str, str]:
    return {"role": "system" if message.role == "developer" else message.role, "content": message.content}


def _without_system(messages: Sequence[ChatMessage]) -> list[dict[str, str]] | None:
    turns = [_turn(message) for message in messages]
    if turns[0]["role"] != _WITHOUT_SYSTEM or len(turns) == 1:
        return None
    system, first, *others = turns
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *others]


def _refusal(error: TemplateError) -> Malformed:
    return Malformed(
        f"The model's chat template does not take this conversation: {error}.",
        code="invalid_messages",
        param="messages",
    )


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> Any:
    return datetime.now().astimezone().strftime(form)
