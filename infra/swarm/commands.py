"""`infra/swarm/deploy`: what an operator does to a stack."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infra.swarm import convergence, versions
from infra.swarm.convergence import Service
from infra.swarm.docker import DeployError, Docker, read_environment
from infra.swarm.release import Release

ROOT: Final = Path(__file__).resolve().parents[2]
_LABELS: Final = ("sluice.edge", "sluice.compute", "sluice.storage")
_MODES: Final = ("normal", "readonly", "maintenance")


def main() -> int:
    """Do what was asked for; every foreseen failure is a sentence and exit status 1."""
    given = _arguments().parse_args()
    try:
        file = Path(given.environment)
        # Variables of the shell win, as they do everywhere.
        os.environ.update({**(read_environment(file) if file.is_file() else {}), **os.environ})
        release = Release(
            root=ROOT,
            stack=given.stack or os.environ.get("SLUICE_STACK", "sluice"),
            secrets=Path(os.environ.get("SLUICE_SECRETS", "secrets")).absolute(),
            overlays=[Path(each) for each in getattr(given, "overlay", [])],
        )
        result: int = given.run(Docker(), release, given)
    except DeployError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return result


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="infra/swarm/deploy", description="Deploy Sluice to this swarm.")
    parser.add_argument("--stack", help="name of the stack (default: SLUICE_STACK, or sluice)")
    parser.add_argument("--environment", default="sluice.env", help="file of NAME=value lines (default sluice.env)")
    parser.set_defaults(run=_deploy)
    commands = parser.add_subparsers(title="commands (default: deploy)", metavar="")
    for name, run, summary in (
        ("init", _init, "make the passwords and keys that are missing in ./secrets"),
        ("build", _build, "build the images of this checkout; what follows -- goes to docker build"),
        ("plan", _plan, "say what a deploy would change, and what is in its way"),
        ("deploy", _deploy, "plan, deploy, wait, smoke-test; take back what failed"),
        ("status", _status, "show every service"),
        ("rollback", _rollback, "give every service its previous definition"),
        ("prune", _prune, "remove old versions of secrets and configs; one previous version is kept"),
        ("mode", _mode, "show or set what nginx lets through"),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(run=run)
        if name in {"plan", "deploy", "rollback"}:
            command.add_argument("--overlay", action="append", default=[], help="another stack file, merged over it")
        if name in {"deploy", "rollback"}:
            command.add_argument("--timeout", type=float, default=600, help="seconds to wait (default 600)")
        if name == "deploy":
            command.add_argument("--no-smoke", action="store_true", help="do not run the smoke suite")
            command.add_argument("--no-resolve", action="store_true", help="use the images that the nodes have")
        if name == "build":
            command.add_argument("options", nargs="*", help="options of docker build, after --")
        if name == "mode":
            command.add_argument("mode", choices=_MODES)
    parser.set_defaults(overlay=[], timeout=600, no_smoke=False, no_resolve=False)
    return parser


def _init(docker: Docker, release: Release, _: argparse.Namespace) -> int:
    release.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = f"{os.getuid()}:{os.getgid()}"
    return docker.show(
        "run", "--rm", "--network", "none", "--user", user, "--volume", f"{release.secrets}:/secrets",
        release.image("api"), "sluice", "secrets", "new", "/secrets",
    )  # fmt: skip


def _build(docker: Docker, release: Release, given: argparse.Namespace) -> int:
    for image in release.build(docker, given.options):
        _say(image)
    return 0


def _plan(docker: Docker, release: Release, _: argparse.Namespace) -> int:
    obstacles = _obstacles(docker)
    if obstacles and not _is_manager(docker):
        raise DeployError(obstacles[0])
    _say(f"for {release.public_url}")
    services = convergence.services_of(docker, release.stack)
    _say(f"stack {release.stack}: {len(services)} services now; version {release.version} of {release.registry}")
    for name in versions.changes(docker, release.stack, release.hashes()):
        _say(f"  new      {name}")
    for each in services:
        _say(f"  running  {each.name} {each.running}/{each.desired} {each.update_state}".rstrip())
    for obstacle in obstacles:
        _say(f"  in the way: {obstacle}")
    return 1 if obstacles else 0


def _deploy(docker: Docker, release: Release, given: argparse.Namespace) -> int:
    if _plan(docker, release, given) != 0:
        return 1
    before = {each.name: each for each in convergence.services_of(docker, release.stack)}
    history = frozenset().union(*(each.rejected for each in before.values()))
    try:
        release.deploy(docker, resolve=not given.no_resolve)
        unchanged = {each.name for each in convergence.services_of(docker, release.stack)} - _changed(
            docker, release, before
        )
        convergence.wait(
            docker, release.stack, seconds=given.timeout, say=_say, ignoring=unchanged, known_tasks=history
        )
        if not given.no_smoke:
            release.smoke(docker)
    except DeployError as error:
        raise DeployError(f"{error}\n{_take_back(docker, release, before, given.timeout)}") from error
    for name in versions.prune(docker, release.stack):
        _say(f"  removed  {name}")
    _say(f"stack {release.stack} is up.")
    return 0


def _changed(docker: Docker, release: Release, before: Mapping[str, Service]) -> set[str]:
    now = convergence.services_of(docker, release.stack)
    return {each.name for each in now if each.name not in before or each.definition != before[each.name].definition}


def _take_back(docker: Docker, release: Release, before: Mapping[str, Service], seconds: float) -> str:
    """Give what was changed its previous definition; a sentence that says how that went."""
    if not before:
        remove = f"docker stack rm {release.stack}"
        return f"It was the first deploy of this stack: there is nothing to go back to. Remove it: {remove}"
    now = {each.name: each for each in convergence.services_of(docker, release.stack)}
    changed = _changed(docker, release, before) & before.keys()
    undo = sorted(name for name in changed if now[name].can_roll_back and not now[name].taken_back)
    history = frozenset().union(*(each.rejected for each in now.values()))
    try:
        _say(f"taking back {', '.join(undo) or 'nothing more than Swarm already has'}")
        convergence.roll_back(docker, undo)
        convergence.wait(docker, release.stack, seconds=seconds, say=_say, ignoring=set(now), known_tasks=history)
    except DeployError as error:
        return f"The deploy failed, and taking it back did not end well either: {error}"
    return "The deploy failed, and the services have their previous definition again."


def _status(docker: Docker, release: Release, _: argparse.Namespace) -> int:
    services = convergence.services_of(docker, release.stack)
    for each in services:
        state = "complete" if each.one_shot and each.completed else f"{each.running}/{each.desired}"
        _say(f"{each.name:<24} {state:<10} {each.update_state} {each.update_message}".rstrip())
    return 0 if services and all(each.converged for each in services) else 1


def _rollback(docker: Docker, release: Release, given: argparse.Namespace) -> int:
    services = convergence.services_of(docker, release.stack)
    # The previous definition of one that was taken back is the one that failed.
    undo = [each.name for each in services if each.can_roll_back and not each.taken_back]
    if not undo:
        raise DeployError(f"No service of {release.stack} has a previous definition that it was not taken back from.")
    history = frozenset().union(*(each.rejected for each in services))
    convergence.roll_back(docker, undo)
    convergence.wait(
        docker,
        release.stack,
        seconds=given.timeout,
        say=_say,
        ignoring={each.name for each in services},
        known_tasks=history,
    )
    return 0


def _prune(docker: Docker, release: Release, _: argparse.Namespace) -> int:
    for name in versions.prune(docker, release.stack):
        _say(f"removed {name}")
    return 0


def _mode(docker: Docker, release: Release, given: argparse.Namespace) -> int:
    release.set_mode(docker, given.mode)
    _say(f"every edge node: {given.mode}")
    return 0


def _obstacles(docker: Docker) -> list[str]:
    if not _is_manager(docker):
        return ["This is not a manager of a swarm: docker swarm init, or go to one."]
    nodes = docker.inspect("node", docker.call("node", "ls", "--quiet").split())
    return [
        f"no ready node has the label {label}: docker node update --label-add {label}=true NODE"
        for label in _LABELS
        if not any(
            node["Spec"].get("Labels", {}).get(label) == "true" and node["Status"]["State"] == "ready" for node in nodes
        )
    ]


def _is_manager(docker: Docker) -> bool:
    info = docker.call("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}").split()
    return info == ["active", "true"]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
