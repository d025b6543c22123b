"""A JSON schema as a grammar. Pure.

llama-cpp-python translates; it ignores what it does not know, and the answer would not be bound by it. So a schema
passes only if every keyword in it is one whose translation binds the answer. The rest is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from llama_cpp.llama_grammar import json_schema_to_gbnf

from services.llm.backends.llama_cpp.errors import GrammarRefused
from services.llm.backends.llama_cpp.grammar import checked

LARGEST: Final = 32_768
"""Characters of a schema at most."""
DEEPEST: Final = 32
_MOST_ITEMS: Final = 200
_ANY_OBJECT: Final = '{"type": "object"}'

# They say something to people, and nothing about what is valid.
_ANNOTATIONS: Final = {"title", "description", "default", "examples", "$comment", "$schema", "$id", "deprecated"}
_DEFINITIONS: Final = {"$defs", "definitions"}
_FORMATS: Final = {"date", "time", "date-time", "uuid"}
# A UTF-16 pair, or half of one.
_ESCAPED_IN_PAIRS: Final = re.compile(r"[\ud800-\udfff\U00010000-\U0010ffff]")
_TYPES: Final = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "format"},
    "number": set[str](),
    "integer": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}


def grammar_for_any_object() -> str:
    """Any JSON object."""
    return _translated(_ANY_OBJECT)


def _translated(schema: str) -> str:
    # In JSON, control characters in strings are escaped; the translation would let them through.
    grammar: str = json_schema_to_gbnf(schema)
    return grammar.replace('[^"\\\\]', '[^"\\\\\\x00-\\x1F\\x7F]')


def grammar_for(schema: Any) -> str:
    """The grammar of what follows the schema; `GrammarRefused` if it is no schema, or cannot be enforced in full."""
    if not isinstance(schema, Mapping):
        raise _refused("is no object")
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) > LARGEST:
        raise _refused(f"has {len(text)} characters; {LARGEST} are accepted")
    _check_depth(schema)
    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise _refused(f"is no JSON schema: {error.message[:200]}") from error
    for part in _parts(schema):
        _check(part)
    renamed = _with_names_of_their_own(json.loads(text), text)
    _check_references(renamed)
    renamed = _with_a_root_of_its_own(renamed)
    _drop_types_of_values(renamed)
    try:
        return checked(_translated(json.dumps(renamed)))
    except GrammarRefused as error:
        raise _refused(f"becomes a grammar that is too large. {error.detail}") from error
    except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _refused(f"cannot be made a grammar: {error}") from error


def _refused(what: str) -> GrammarRefused:
    return GrammarRefused(f"The schema {what}.", code="invalid_json_schema", param="response_format")


def _check_depth(schema: Mapping[str, Any]) -> None:
    level: list[Any] = [schema]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise _refused(f"is nested deeper than {DEEPEST}")


def _inside(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (one for one in inner if isinstance(one, Mapping | list))


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and every schema in it."""
    if not isinstance(schema, Mapping):
        raise _refused(f"has {json.dumps(schema)} where only an object is understood")
    yield schema
    for name in ("properties", *_DEFINITIONS):
        for inner in schema.get(name, {}).values():
            yield from _parts(inner)
    for inner in schema.get("anyOf", ()):
        yield from _parts(inner)
    if "items" in schema:
        yield from _parts(schema["items"])
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _parts(schema["additionalProperties"])


def _check(part: Mapping[str, Any]) -> None:
    used = set(part) - _ANNOTATIONS - _DEFINITIONS
    if len(used) == 1 and used <= {"$ref", "anyOf"}:
        return
    if "const" in part or "enum" in part:
        _check_values(part, used)
        return
    kind = part.get("type")
    if isinstance(kind, list):
        if used != {"type"}:
            raise _refused("has a list of types with other keywords beside it; use anyOf")
        return
    if not used:
        raise _refused("has a part that allows anything; give it a type")
    if kind is None:
        raise _refused(f"has {min(used)!r} without a type beside it")
    if unknown := sorted(used - {"type"} - _TYPES[kind]):
        raise _refused(f"has {unknown[0]!r} with the type {kind}, which cannot be enforced here")
    _check_details(part, used)


def _check_values(part: Mapping[str, Any], used: set[str]) -> None:
    if used - {"type", "const", "enum"} or {"const", "enum"} <= used:
        raise _refused("has other keywords beside enum or const")
    values = [part["const"]] if "const" in part else part["enum"]
    if not values:
        raise _refused("has an enum without values")
    for value in values:
        _check_written(value)
    try:
        for value in values:
            Draft202012Validator({"type": part["type"]} if "type" in part else {}).validate(value)
    except ValidationError as error:
        raise _refused(f"has a value that is not of its type: {error.message[:100]}") from error


def _check_written(value: Any) -> None:
    """The translation writes JSON's escapes into the grammar, where they mean what may not stand in JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise _refused("has a number that JSON cannot write") from error
    if "\\" in text or _ESCAPED_IN_PAIRS.search(text):
        raise _refused(f"has {text[:80]}: quotes, backslashes, control characters and emoji cannot be enforced here")
    if '"$ref":' in text:
        raise _refused("has a value with a member $ref, which would be taken for a reference")


def _check_names(part: Mapping[str, Any]) -> None:
    names = part.get("properties", {})
    for name in names:
        _check_written(name)
    if "*" in names:
        raise _refused("has a property '*', which would be taken for all others")
    # They would be written without a comma between them, and could be those of `properties` with another type.
    if names and part.get("additionalProperties", False) is not False:
        raise _refused("has additionalProperties beside properties; set it to false")


def _check_details(part: Mapping[str, Any], used: set[str]) -> None:
    _check_names(part)
    if unknown := sorted(set(part.get("required", ())) - set(part.get("properties", ()))):
        raise _refused(f"requires {unknown[0]!r}, which is not among its properties")
    if "format" in used and (part["format"] not in _FORMATS or used & {"minLength", "maxLength"}):
        raise _refused(f"has the format {part['format']!r}, which cannot be enforced here")
    if part.get("type") == "array" and "items" not in part and used != {"type"}:
        raise _refused("has an array with limits and without items")
    for least, most in (("minItems", "maxItems"), ("minLength", "maxLength")):
        if part.get(most, 0) > _MOST_ITEMS or part.get(least, 0) > _MOST_ITEMS:
            raise _refused(f"has {most} or {least} above {_MOST_ITEMS}")
        if most in part and part.get(least, 0) > part[most]:
            raise _refused(f"has {least} above {most}")


def _with_names_of_their_own(schema: Any, text: str) -> Any:
    """Definitions renamed, because the translation takes a rule of the same name for them."""
    prefix = "definition"
    while prefix in text:
        prefix += "-x"
    names: dict[str, str] = {}

    def renamed(value: Any) -> Any:
        if isinstance(value, list):
            return [renamed(one) for one in value]
        if not isinstance(value, dict):
            return value
        found = {key: renamed(one) for key, one in value.items()}
        if isinstance(value.get("$ref"), str):
            reference = value["$ref"]
            place, _, name = reference.rpartition("/")
            if place.removeprefix("#/") not in _DEFINITIONS:
                raise _refused(f"refers to {reference[:80]!r}; only #/$defs/NAME is understood")
            found["$ref"] = f"{place}/{names.setdefault(name, f'{prefix}-{len(names)}')}"
        return found

    result = renamed(schema)
    for place in _DEFINITIONS & set(result):
        result[place] = {names.get(name, f"{prefix}-unused-{name}"): one for name, one in result[place].items()}
    return result


def _with_a_root_of_its_own(schema: dict[str, Any]) -> dict[str, Any]:
    """What pydantic writes of a model that has itself inside: the translation knows no root that is a reference."""
    definitions = {place: schema[place] for place in _DEFINITIONS & set(schema)}
    while (reference := schema.get("$ref")) is not None:
        place, _, name = reference.removeprefix("#/").partition("/")
        schema = {**definitions[place][name], **definitions}
    return schema


def _drop_types_of_values(schema: Mapping[str, Any]) -> None:
    """Values have been held against their type; the translation would take a list of types and leave the values out."""
    for part in _parts(schema):
        if isinstance(part, dict) and ("const" in part or "enum" in part):
            part.pop("type", None)


def _check_references(schema: Mapping[str, Any]) -> None:
    """Each leads somewhere, and not in a circle of nothing but references."""
    for part in _parts(schema):
        seen: set[str] = set()
        target = part
        while (reference := target.get("$ref")) is not None:
            if reference in seen:
                raise _refused("has references that lead in a circle")
            seen.add(reference)
            place, _, name = reference.removeprefix("#/").partition("/")
            if name not in schema.get(place, {}):
                raise _refused("refers to a definition that it does not have")
            target = schema[place][name]
