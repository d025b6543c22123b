"""What the platform is made of: one declaration per process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.util import find_spec
from pathlib import Path

from infra.embedded.failures import PartMissingError
from infra.embedded.probes import Probe


class Layer(IntEnum):
    """Layers are stopped from the top: nobody loses a server that it still talks to."""

    FOUNDATION = 0
    STORE = 1
    MODEL = 2
    SERVICE = 3
    EDGE = 4


@dataclass(frozen=True)
class Part:
    """One process under the supervisor, on ports of the loopback address."""

    name: str
    layer: Layer
    command: list[str]
    folder: Path
    probe: Probe
    ports: tuple[int, ...]
    address: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    # Given to the supervisor, for values that the syntax of its configuration cannot carry.
    inherited: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    # What must be there before the first start: folders, configurations. Runs at every start, so it must be repeatable.
    prepare: Callable[[], None] = lambda: None
    start_seconds: float = 60
    stop_signal: str = "TERM"
    stop_seconds: int = 20
    # Some lose a signal that comes while they start.
    repeat_stop_signal: bool = False


def program_of(package: str, *path: str) -> Path:
    """A program that came inside a Python package; the package is not imported."""
    spec = find_spec(package)
    program = Path(spec.origin).parent.joinpath(*path) if spec and spec.origin else None
    if program is None or not program.exists():
        raise PartMissingError(
            f"{path[-1]} is missing: it comes in the Python package {package}. Install it: make setup, or pip install "
            "-c constraints.txt -e '.[dev]'"
        )
    return program
