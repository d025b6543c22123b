"""docs/environments.md says what the code and the stack files say; variables in stack files are read as Docker does."""

from __future__ import annotations

import re

import pytest

from infra.swarm.compose_files import Variable, default_of, substitute, variables
from infra.swarm.environments import DOCUMENT, MEANINGS, ROOT, document, edge_variables
from tests.unit.deployment import COMPOSE, STACK, TLS


def test_the_tables_are_those_that_the_module_writes() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert document(text) == text, "run `python -m infra.swarm.environments`"


def test_no_meaning_is_kept_of_a_variable_that_is_gone() -> None:
    known = {one.name for file in (STACK, COMPOSE, TLS) for one in variables(file)} | {
        "SLUICE_SMOKE_CA",
        "SLUICE_SMOKE_URL",
    }

    assert set(MEANINGS) <= known


def test_every_variable_that_the_deploy_tool_reads_is_in_the_table() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "infra" / "swarm").glob("*.py"))
    read = set(re.findall(r"""environ(?:\.get\(|\[)"(\w+)""", code))

    assert {name for name in read if f"| `{name}` |" not in DOCUMENT.read_text(encoding="utf-8")} == set()


def test_every_default_of_the_edge_has_its_meaning_above_it() -> None:
    script = (ROOT / "infra" / "nginx" / "entrypoint.sh").read_text(encoding="utf-8")

    assert set(edge_variables()) == set(re.findall(r'^: "\$\{(\w+):=', script, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("a ${B:-c} d", "a c d"),
        ("${A:-x${B:-y}z}", "xyz"),
        ("${A:?it is {needed}, ${B}}!", "!"),
        ("${A}${B-c}", "c"),
        ("$${A:-b} $$(cat file)", "${A:-b} $(cat file)"),
    ],
)
def test_a_variable_is_replaced_as_docker_replaces_it(text: str, value: str) -> None:
    assert substitute(text, default_of) == value


@pytest.mark.parametrize("text", ["$A", "${A", "${A:+b}", "$(cat file)", "cost: $"])
def test_a_dollar_that_docker_would_not_understand_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\$"):
        substitute(text, default_of)


def test_a_variable_that_must_be_set_is_told_from_one_that_may_be() -> None:
    assert list(variables({"key": ["${A:?why}", "${B:-${C}}", 1, None]})) == [
        Variable("A", required=True), Variable("B", default="${C}"), Variable("C"),
    ]  # fmt: skip
