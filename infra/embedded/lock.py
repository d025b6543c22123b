"""The pinned versions in constraints.txt: `python -m infra.embedded.lock [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS: Final = Path(__file__).parents[2] / "constraints.txt"
_PROJECT: Final = Requirement("sluice[dev]")
_TOOLS: Final = {"sluice", "pip", "setuptools", "wheel"}
_HEADER: Final = """\
# Every version that is installed, by `make setup` and in the images. Written by `make lock` from what is in .venv;
# lines with a marker are for other Pythons, and kept.
"""


def pins() -> dict[str, str]:
    """The versions in constraints.txt by package, for this Python."""
    lines = [line.strip() for line in CONSTRAINTS.read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(one.name): next(iter(one.specifier)).version
        for one in wanted
        if one.marker is None or one.marker.evaluate()
    }


def write() -> None:
    """Pin what is installed here."""
    elsewhere = [line for line in CONSTRAINTS.read_text().splitlines() if ";" in line and not line.startswith("#")]
    installed = {canonicalize_name(one.name): f"{one.name}=={_public(one)}" for one in distributions()}
    lines = [pin for name, pin in installed.items() if name not in _TOOLS]
    lines += [line for line in elsewhere if canonicalize_name(Requirement(line).name) not in installed]
    CONSTRAINTS.write_text(_HEADER + "\n".join(sorted(lines, key=str.lower)) + "\n")


def problems() -> Iterator[str]:
    """What is installed but not pinned, or pinned but installed in another version."""
    pinned = pins()
    for name, (installed, exact) in sorted(_closure().items()):
        if name in _TOOLS:
            continue
        if name not in pinned:
            # A package that a pinned one requires in one version is as good as pinned.
            if not exact:
                yield f"{name} {installed} is not pinned"
        elif Version(pinned[name]) != Version(installed):
            yield f"{name} is pinned to {pinned[name]}, but {installed} is installed"


def _closure() -> dict[str, tuple[str, bool]]:
    """Each package that the project needs here: its installed version, and whether another requires exactly that."""
    found: dict[str, tuple[str, bool]] = {}
    seen: set[str] = set()
    waiting = [_PROJECT]
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        try:
            package = distribution(wanted.name)
        except PackageNotFoundError:
            continue
        name = canonicalize_name(wanted.name)
        exact = any(one.operator == "==" and "*" not in one.version for one in wanted.specifier)
        found[name] = (_public(package), exact or found.get(name, ("", False))[1])
        waiting += _requirements(package, wanted.extras)
    return found


def _requirements(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    here = {key: str(value) for key, value in default_environment().items()}
    for line in package.requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate(here | {"extra": extra}) for extra in extras or {""}):
            yield wanted


def _public(package: Distribution) -> str:
    # `2.13.0+cpu` is a build of 2.13.0: which build it is, is for the index to say that each machine uses.
    return Version(package.version).public


def main() -> int:
    """Write constraints.txt, or check it: 1 with a line per problem."""
    parser = argparse.ArgumentParser(prog="lock", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail if something is not pinned")
    if not parser.parse_args().check:
        write()
        return 0
    found = list(problems())
    for problem in found:
        sys.stderr.write(f"constraints.txt: {problem}. Run `make lock`, or `make setup`.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
