"""stack.yml and docker-compose.yml as values, with the variables in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped] # its types are a package that nothing else needs

_EXPRESSION = re.compile(r"(?P<name>[A-Za-z_]\w*)(?::?(?P<operator>[-?])(?P<operand>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Variable:
    """`${NAME}`, `${NAME:-default}` or `${NAME:?what to do}`."""

    name: str
    default: str | None = None
    required: bool = False


ValueOf = Callable[[Variable], str]


def load(path: Path) -> dict[str, Any]:
    """The file, its variables not yet replaced."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def interpolate(value: Any, value_of: ValueOf) -> Any:
    """The same with a value for each variable, in every string but those that are keys."""
    if isinstance(value, dict):
        return {key: interpolate(each, value_of) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolate(each, value_of) for each in value]
    return substitute(value, value_of) if isinstance(value, str) else value


def substitute(text: str, value_of: ValueOf) -> str:
    """The text with a value for each variable; `$$` is a dollar."""
    head, dollar, rest = text.partition("$")
    if not dollar:
        return head
    if rest.startswith("$"):
        return f"{head}${substitute(rest[1:], value_of)}"
    inside, tail = _braced(rest)
    return head + value_of(_variable(inside)) + substitute(tail, value_of)


def default_of(variable: Variable) -> str:
    """What stands there when nobody sets the variable; empty for one that must be set."""
    return substitute(variable.default or "", default_of)


def variables(value: Any) -> Iterator[Variable]:
    """Every variable, as often as it stands there; those in a default too."""
    found: list[Variable] = []

    def note(variable: Variable) -> str:
        found.append(variable)
        return substitute(variable.default or "", note)

    interpolate(value, note)
    yield from found


def _braced(text: str) -> tuple[str, str]:
    depth = 0
    for end, character in enumerate(text if text.startswith("{") else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[1:end], text[end + 1 :]
    raise ValueError(f"'${text}': write ${{NAME}}, or $$ for a dollar.")


def _variable(expression: str) -> Variable:
    found = _EXPRESSION.fullmatch(expression)
    if found is None:
        raise ValueError(f"${{{expression}}} is no variable that Docker knows.")
    operator, operand = found["operator"], found["operand"]
    return Variable(found["name"], operand if operator == "-" else None, required=operator == "?")
