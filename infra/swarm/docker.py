"""The docker command, its answers as values."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class DeployError(Exception):
    """A sentence for the operator: what is wrong, why, what to do."""


class Docker:
    """One engine, as the docker command reaches it (DOCKER_HOST and contexts apply)."""

    def __init__(self, program: str = "docker", environment: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._environment = {**os.environ, **(environment or {})}

    @property
    def host(self) -> str:
        """Where the engine listens, as DOCKER_HOST has it."""
        return self._environment.get("DOCKER_HOST", "")

    def call(self, *arguments: str, timeout: float = 600, environment: Mapping[str, str] | None = None) -> str:
        """What the command prints; `DeployError` with its own words when it fails."""
        done = self._run(arguments, timeout, environment, capture=True)
        if done.returncode != 0:
            raise DeployError(f"docker {' '.join(arguments[:3])} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def show(self, *arguments: str, timeout: float = 600, environment: Mapping[str, str] | None = None) -> int:
        """Run the command before the operator's eyes; its exit status."""
        return self._run(arguments, timeout, environment, capture=False).returncode

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """A listing, a dictionary a line."""
        return [json.loads(line) for line in self.call(*arguments, "--format", "{{json .}}").splitlines() if line]

    def inspect(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Everything the engine knows of these objects."""
        found: list[dict[str, Any]] = json.loads(self.call(kind, "inspect", *names)) if names else []
        return found

    def _run(
        self, arguments: Sequence[str], timeout: float, environment: Mapping[str, str] | None, *, capture: bool
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._program, *arguments],
                env={**self._environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=capture,
                text=True,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeployError("There is no docker command here: run this on a manager of the swarm.") from error
        except subprocess.TimeoutExpired as error:
            raise DeployError(f"docker {' '.join(arguments[:3])} did not end within {timeout:.0f} s.") from error


def read_environment(file: Path) -> dict[str, str]:
    """The `NAME=value` lines of an environment file; Swarm reads none by itself."""
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise DeployError(f"{file}, line {number}: expected NAME=value, found {text!r}.")
        found[name] = value.strip("'\"")
    return found
