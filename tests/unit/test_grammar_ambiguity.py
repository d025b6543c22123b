"""Grammars that llama.cpp would follow for too long, and those that it follows quickly."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pytest

from services.llm.backends.llama_cpp.errors import GrammarRefused
from services.llm.backends.llama_cpp.grammar import LARGEST, checked
from services.llm.backends.llama_cpp.json_schema import grammar_for, grammar_for_any_object

JSON: Final = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC: Final = r"""
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""
LISTING: Final = r"""
root ::= item+
# Excludes various line break characters
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"""
CHESS: Final = r"""
root    ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move    ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn    ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle  ::= "O-O" "-O"?
"""
C: Final = r"""
root ::= (declaration)*
declaration ::= dataType identifier "(" parameter? ")" "{" statement* "}"
dataType  ::= "int" ws | "float" ws | "char" ws
identifier ::= [a-zA-Z_] [a-zA-Z_0-9]*
parameter ::= dataType identifier
statement ::=
    ( dataType identifier ws "=" ws expression ";" ) |
    ( identifier ws "=" ws expression ";" ) |
    ( identifier ws "(" argList? ")" ";" ) |
    ( "return" ws expression ";" ) |
    ( "while" "(" condition ")" "{" statement* "}" ) |
    ( "for" "(" forInit ";" ws condition ";" ws forUpdate ")" "{" statement* "}" ) |
    ( "if" "(" condition ")" "{" statement* "}" ("else" "{" statement* "}")? ) |
    ( singleLineComment ) |
    ( multiLineComment )
forInit ::= dataType identifier ws "=" ws expression | identifier ws "=" ws expression
forUpdate ::= identifier ws "=" ws expression
condition ::= expression relationOperator expression
relationOperator ::= ("<=" | "<" | "==" | "!=" | ">=" | ">")
expression ::= term (("+" | "-") term)*
term ::= factor(("*" | "/") factor)*
factor ::= identifier | number | unaryTerm | funcCall | parenExpression
unaryTerm ::= "-" factor
funcCall ::= identifier "(" argList? ")"
parenExpression ::= "(" ws expression ws ")"
argList ::= expression ("," ws expression)*
number ::= [0-9]+
singleLineComment ::= "//" [^\n]* "\n"
multiLineComment ::= "/*" ( [^*] | ("*" [^/]) )* "*/"
ws ::= ([ \t\n]+)
"""
DANGLING_ELSE: Final = r"""
root ::= statement
statement ::= "if (" name ") " statement ("else " statement)? | name ";" | "{" statement* "}"
name ::= [a-z]+
"""
JAPANESE: Final = r"""
root  ::= jp-char+ ([ \t\n] jp-char+)*
jp-char ::= hiragana | katakana | punctuation | cjk
hiragana ::= [ぁ-ゟ]
katakana ::= [ァ-ヿ]
punctuation ::= [、-〾]
cjk ::= [一-鿿]
"""
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def words(count: int, prefix: str) -> str:
    return " | ".join(f'"{prefix}{LETTERS[n % 26]}{LETTERS[n // 26 % 26]}{n}"' for n in range(count))


def fields(count: int) -> str:
    inside = ' "," ws '.join(f'"\\"field{n}\\":" ws string' for n in range(count))
    return f'root ::= "{{" ws {inside} "}}" ws\nstring ::= "\\"" [^"\\\\]* "\\"" ws\nws ::= [ \\t\\n]*'


def row(one: str, times: int) -> str:
    return "root ::= " + " ".join([one] * times)


QUICK: Final = {
    "json": JSON,
    "json with spaces anywhere": JSON.replace('| " " | "\\n" [ \\t]{0,20}', "[ \\t\\n]*"),
    "json with spaces by recursion": JSON.replace('| " " | "\\n" [ \\t]{0,20}', "([ \\t\\n] ws)?"),
    "arithmetic": ARITHMETIC,
    "list": LISTING,
    "chess": CHESS,
    "c": C,
    "else that may belong to two": DANGLING_ELSE,
    "japanese": JAPANESE,
    "30 fields": fields(30),
    "200 words with a common prefix": "root ::= " + words(200, "prefix"),
    "1000 words": "root ::= " + words(1000, ""),
    "1000 words with a common prefix": "root ::= " + words(1000, "prefix"),
    "a list of 1000 words": f'root ::= word (", " word)*\nword ::= {words(1000, "")}',
    "two spaces in a row": 'root ::= "a" ws ws "b"\nws ::= [ \\t\\n]*',
    "three spaces in a row": 'root ::= ("a" ws ws ws "b")+\nws ::= [ \\t\\n]*',
    "one star within another": "root ::= ((x*)*)*\nx ::= [a-z]",
    "sentences": 'root ::= (word (" " word)* [.!?] " "?)+\nword ::= [A-Za-z]+',
    "up to 500 characters": "root ::= [^\\n]{1,500}",
    "a long text": f'root ::= "{"long " * 12_000}"',
    "one way too many": "root ::= [a-z]+ | [a-z]+",
    "palindromes": 'root ::= "a" root "a" | "b" root "b" | "c"',
    "nothing": 'root ::= ""',
    "nothing, again and again": 'root ::= a*\na ::= b*\nb ::= ""',
    "rule after rule": "\n".join(f'r{n} ::= r{n + 1} | "a"' for n in range(900)) + '\nr900 ::= "b"\nroot ::= r0',
}
SLOW: Final = {
    **{f"{times} stars in a row": row("x", times) + "\nx ::= [a-z]*" for times in (6, 12, 30, 60)},
    **{f"one of {n} the same, again and again": f"root ::= ({' | '.join(LETTERS[:n]) if n < 27 else ' | '.join(f'x{i}' for i in range(n))})*\n"
       + "\n".join(f"{LETTERS[i] if n < 27 else f'x{i}'} ::= [a-z]" for i in range(n)) for n in (2, 3, 6, 20, 40)},
    "30 that may be missing": row("x?", 30) + "\nx ::= [a-z]",
    "8 times up to 30": row("x{0,30}", 8) + "\nx ::= [a-z]",
    "empty through others": row("x", 30) + "\nx ::= y z\ny ::= z\nz ::= w | z2\nz2 ::= w w\nw ::= [a-z]?",
    "behind a long text": f'root ::= "{"long" * 20}" {" ".join(["x"] * 12)}\nx ::= [a-z]*',
    "after many turns": 'root ::= "a" root "x"? | "b"',
    "after many turns of two": 'root ::= "ab" root "c" | "ab" root "d" | "e"',
    "after turns through others": 'root ::= one\none ::= "(" two ws\ntwo ::= "[" one ws | "x"\nws ::= [ ]*',
    "where each turn ends in three ways": 'root ::= "a" root ("b" | "b" | "b") | "c"',
    "two in one or one in two": 'root ::= ("-" | "--")*',
    "a word that is many words": 'root ::= (word " "?)+\nword ::= [a-z]+',
    "1000 beginnings": "root ::= " + " | ".join(f'[^s] "{n}"' for n in range(1000)),
    "4000 words": "root ::= " + words(4000, ""),
    "600 words without an end": f"root ::= ({' | '.join(chr(34) + LETTERS[n % 26] + LETTERS[n // 26] + chr(34) for n in range(600))})*",
    "rules that begin with one another": "root ::= r0\n" + "\n".join(f"r{n} ::= r{n + 1} | r{n + 1}" for n in range(40)) + '\nr40 ::= "a"',
    "letters one by one": f"root ::= ({' | '.join(chr(34) + one + chr(34) for one in LETTERS)})*",
    "a large set": "root ::= [^" + "".join(chr(9000 + 2 * n) for n in range(20_000)) + "]*",
    "sets of the same again and again": "root ::= " + " | ".join(["[" + "a" * 100 + "]"] * 500),
    "left recursion": 'root ::= root "a"',
    "hidden left recursion": 'root ::= e root "a" | "b"\ne ::= f\nf ::= ""',
    "many empty ones within one another": "\n".join(f"r{n} ::= r{n + 1}? r{n + 1}?" for n in range(30)) + '\nr30 ::= "b"\nroot ::= r0',
    "three A and three B, of ten": 'root ::= ("a"? "a"? "a"? "a"? "a"? "a"? "a"? "a"? "a"? "a"?)*',
}  # fmt: skip
LARGE: Final = {
    "sixty thousand optional ones": "root ::= " + '"a"?' * 16_000,
    "many repetitions": "root ::= " + "[a-z]{1,900} " * 4_000,
    "many sets": "root ::= (" + "|".join(f"[{chr(256 + n)}-{chr(9000 + n)}]" for n in range(7_000)) + ")*",
    "many rules": "root ::= r0\n" + "\n".join(f'r{n} ::= "a" r{n + 1}? "b" | "a" r{n // 2}' for n in range(1_800)) + '\nr1800 ::= "a"',
    "many turns": "root ::= r0\n" + "\n".join(f'r{n} ::= "a" r{(n * 7 + 1) % 900} "b" r{(n * 5 + 3) % 900}? | "c"' for n in range(900)),
    "deep": "root ::= " + "(" * 250 + '"a"' + ")*" * 250,
    "many letters": "root ::= [" + "".join(chr(256 + 2 * n) for n in range(20_000)) + "]*",
}  # fmt: skip


@pytest.mark.parametrize("grammar", QUICK.values(), ids=QUICK.keys())
def test_a_grammar_that_reads_a_text_in_few_ways_passes(grammar: str) -> None:
    assert checked(grammar) == grammar


@pytest.mark.parametrize("grammar", SLOW.values(), ids=SLOW.keys())
def test_a_grammar_that_reads_a_text_in_too_many_ways_is_refused(grammar: str) -> None:
    with pytest.raises(GrammarRefused, match="takes too long to follow"):
        checked(grammar)


def test_the_rule_is_named() -> None:
    with pytest.raises(GrammarRefused, match="rule 'much' reads the same text in too many ways"):
        checked('root ::= "a" much\nmuch ::= x x x x x x x x\nx ::= [a-z]*')


@pytest.mark.parametrize("grammar", LARGE.values(), ids=LARGE.keys())
def test_the_largest_grammars_come_to_a_verdict(grammar: str) -> None:
    assert len(grammar) <= LARGEST
    with suppress(GrammarRefused):
        assert checked(grammar) == grammar


RICH: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        **{f"text{n}": {"type": "string", "maxLength": 60} for n in range(12)},
        **{f"number{n}": {"type": "number"} for n in range(6)},
        "kind": {"enum": [f"kind{n}" for n in range(40)]},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 10},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["text0", "kind", "parts"],
    "additionalProperties": False,
    "$defs": {
        "part": {"type": "object", "properties": {"name": {"type": "string"}, "inner": {"$ref": "#/$defs/part"}}},
    },
}


OPTIONAL: Final[dict[str, Any]] = {"type": "object", "properties": {f"n{n}": {"type": "number"} for n in range(40)}}


@pytest.mark.parametrize("schema", [RICH, OPTIONAL], ids=["rich", "40 that may be missing"])
def test_what_is_made_of_a_schema_passes(schema: dict[str, Any]) -> None:
    assert grammar_for(schema)


def test_any_object_passes() -> None:
    assert checked(grammar_for_any_object())
