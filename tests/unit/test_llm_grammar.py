"""Grammars and schemas that may be given to llama.cpp, and those that may not."""

from __future__ import annotations

from typing import Any

import pytest

from services.llm.backends.llama_cpp.errors import GrammarRefused
from services.llm.backends.llama_cpp.grammar import LARGEST, checked
from services.llm.backends.llama_cpp.json_schema import grammar_for, grammar_for_any_object

LIST = r"""
# A list of numbered lines.
root  ::= item+
item  ::= [0-9]{1,3} ". " text "\n"
text  ::= [^\n\x00]+ | ( "a" | "\"" ( "b" ){2} )?
"""


@pytest.mark.parametrize("grammar", [LIST, 'root ::= "yes" | "no"', "root ::= . # anything", 'root ::=\n  "a"\n'])
def test_a_grammar_in_order_passes(grammar: str) -> None:
    assert checked(grammar) == grammar


@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        ("(" * 60_000, "::="),
        ("root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000, "nested deeper"),
        ("root ::= " + '"a" ' * 60_000, f"{LARGEST} are accepted"),
        ('root ::= ("a"', "not closed"),
        ('root ::= "a")', "not opened"),
        ('root ::= "a', "not understood"),
        ("root ::= other", "'other' is used and not defined"),
        ('other ::= "a"', "no rule `root`"),
        ('root ::= "a"\nroot ::= "b"', "defined twice"),
        ("root ::= *", "nothing before it"),
        ('root ::= "a" | +', "nothing before it"),
        ('root ::= (("a"{30}){30}){30}', "multiply"),
        ('root ::= "a"{999999}', "multiply"),
        ('root ::= "a"{5,2}', "less than nothing"),
        ("root ::= []", "empty"),
        (r'root ::= "\q"', "escape"),
        ("root ::= <[5]>", "not understood"),
        ('root ::= "\x00"', "control characters"),
        ("", "no rule `root`"),
    ],
)
def test_a_grammar_that_might_end_the_process_is_refused_with_its_fault(grammar: str, complaint: str) -> None:
    with pytest.raises(GrammarRefused) as refused:
        checked(grammar)
    assert complaint in refused.value.detail


PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer"},
        "kind": {"enum": ["a", "b", None]},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
        "boss": {"anyOf": [{"$ref": "#/$defs/name"}, {"type": "null"}]},
        "note": {"type": ["string", "null"]},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "object", "properties": {"boss": {"$ref": "#/$defs/name"}}}},
}


def rules_of(schema: Any) -> dict[str, str]:
    return dict(line.split(" ::= ", 1) for line in grammar_for(schema).splitlines())


def test_a_schema_in_order_becomes_a_grammar() -> None:
    grammar = grammar_for(PERSON)

    assert checked(grammar)
    assert r'"\"name\""' in grammar


def test_a_definition_is_not_mistaken_for_a_rule_of_the_same_name() -> None:
    """The translation would take its own rule `string`, or that of the property, for the definition."""
    properties = {"kind": {"$ref": "#/$defs/string"}, "char": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "$defs": {"string": {"enum": ["only this"]}}}

    rules = rules_of(schema)

    (definition,) = (name for name in rules if name.startswith("definition-"))
    assert rules[definition] == r'"\"only this\""'
    assert rules["kind"] == definition


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        ({"type": ["string", "null"], "enum": ["a", "b", None]}, r'"\"a\"" | "\"b\"" | "null"'),
        ({"type": ["integer", "string"], "const": 7}, '"7"'),
        ({"type": "string", "enum": ["a"]}, r'"\"a\""'),
    ],
)
def test_values_bind_the_answer_whatever_types_stand_beside_them(schema: Any, rule: str) -> None:
    assert rules_of(schema)["root"] == rule
    inside = rules_of({"type": "object", "properties": {"type": schema, "enum": {"type": "string"}}})
    assert inside["type"] == rule
    assert inside["enum-kv"] == r'"\"enum\"" space ":" space string'


def test_a_model_that_has_itself_inside_is_understood_as_pydantic_writes_it() -> None:
    """It writes a reference at the root."""
    inner = {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}
    node = {"type": "object", "properties": {"inner": inner}, "required": ["inner"], "additionalProperties": False}

    rules = rules_of({"$defs": {"Node": node}, "$ref": "#/$defs/Node"})

    assert rules["root"] == '"{" space inner-kv "}" space'
    assert rules["inner"] == "inner-0 | null"
    assert rules["inner-0"] == "definition-0"
    assert rules["definition-0-inner-0"] == "definition-0"


def test_cyrillic_and_accents_are_written_as_they_are() -> None:
    rules = rules_of({"type": "object", "properties": {"вид": {"enum": ["шлюз", "café"]}}})

    # In a grammar, these are the characters themselves.
    assert r'"\"\u0448\u043b\u044e\u0437\"" | "\"caf\u00e9\""' in rules.values()
    assert any(rule.startswith(r'"\"\u0432\u0438\u0434\"" space ":"') for rule in rules.values())


def test_strings_have_no_raw_control_characters() -> None:
    assert r"\x00-\x1F" in grammar_for_any_object()


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("no schema", "is no object"),
        ({"type": "objekt"}, "is no JSON schema"),
        ({"properties": ["a"]}, "is no JSON schema"),
        ({"type": "string", "pattern": "^a+$"}, "'pattern'"),
        ({"type": "integer", "minimum": 3}, "'minimum'"),
        ({"type": "object", "not": {"required": ["a"]}}, "'not'"),
        ({"oneOf": [{"type": "string"}]}, "'oneOf'"),
        ({"type": "object", "properties": {}, "anyOf": [{"type": "object"}]}, "'anyOf'"),
        ({"minLength": 3}, "without a type"),
        ({}, "allows anything"),
        ({"type": "object", "properties": {"a": True}}, "only an object is understood"),
        ({"type": "object", "required": ["a"]}, "not among its properties"),
        ({"type": "string", "format": "email"}, "'email'"),
        ({"type": "integer", "enum": ["one"]}, "not of its type"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 100_000}, "maxItems"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 2}, "above maxItems"),
        ({"$ref": "https://example.org/schema.json"}, "refers to"),
        ({"$ref": "#/$defs/a"}, "does not have"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "circle"),
        (nested(100), "nested deeper"),
        ({"enum": ["x" * 40_000]}, "are accepted"),
        ({"enum": ["C:\\temp"]}, "cannot be enforced"),
        ({"enum": ['say "yes"']}, "cannot be enforced"),
        ({"const": "two\nlines"}, "cannot be enforced"),
        ({"const": {"deep": ["\x01"]}}, "cannot be enforced"),
        ({"enum": ["😀"]}, "cannot be enforced"),
        ({"enum": ["\ud83d"]}, "cannot be enforced"),
        ({"enum": [float("inf")]}, "JSON cannot write"),
        ({"const": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "string"}}}, "$ref"),
        ({"type": "object", "properties": {"a\\b": {"type": "string"}}}, "cannot be enforced"),
        ({"type": "object", "properties": {"*": {"type": "string"}}}, "'*'"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}, "beside"),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
            "beside",
        ),
    ],
)
def test_a_schema_that_would_not_bind_the_answer_is_refused_with_its_fault(schema: Any, complaint: str) -> None:
    with pytest.raises(GrammarRefused) as refused:
        grammar_for(schema)
    assert complaint in refused.value.detail
    assert refused.value.code == "invalid_json_schema"
