"""Whether a stack has become what it was told to be."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

from infra.swarm.docker import DeployError, Docker

_POLL_SECONDS: Final = 2.0
# Tasks may be counted as running a moment before the engine begins to replace them.
_CALM_LOOKS: Final = 3
# A task is rejected before it starts, for a reason that stays: no such image, not enough processors.
_HOPELESS: Final = 3
_ONE_SHOT: Final = "sluice.one-shot"
_TAKEN_BACK: Final = frozenset({"rollback_started", "rollback_paused", "rollback_completed"})


@dataclass(frozen=True)
class Service:
    """A service of the stack, and how far it is."""

    name: str
    definition: str
    update_state: str
    update_message: str
    running: int
    desired: int
    completed: int
    rejected: frozenset[str]
    one_shot: bool
    can_roll_back: bool

    @property
    def converged(self) -> bool:
        """All that shall run runs, or has run to its end, and no update is under way."""
        if self.update_state in {"updating", "rollback_started"}:
            return False
        return bool(self.completed) if self.one_shot else self.running == self.desired

    @property
    def taken_back(self) -> bool:
        """The engine gave the service its previous definition, or is about to."""
        return self.update_state in _TAKEN_BACK

    @property
    def given_up(self) -> bool:
        """The engine does not go on with the update."""
        return self.taken_back or self.update_state == "paused"


def services_of(docker: Docker, stack: str) -> list[Service]:
    """The services of the stack as the engine sees them now."""
    names = docker.call(
        "service", "ls", "--filter", f"label=com.docker.stack.namespace={stack}", "--format", "{{.Name}}"
    ).split()
    return [_service(docker, each) for each in docker.inspect("service", names)]


def wait(
    docker: Docker,
    stack: str,
    *,
    seconds: float,
    say: Callable[[str], None],
    ignoring: Collection[str] = (),
    known_tasks: AbstractSet[str] = frozenset(),
) -> None:
    """Return when every service has converged; `DeployError`, with what its tasks say, when one cannot.

    `ignoring`: services that this deploy did not change; that an earlier update was taken back is no news. Nor is what
    became of `known_tasks`: the engine keeps the history of a service.
    """
    deadline = time.monotonic() + seconds
    calm = 0
    said = ""
    while calm < _CALM_LOOKS:
        services = services_of(docker, stack)
        failed = [each.name for each in services if each.given_up and each.name not in ignoring]
        if failed:
            raise DeployError(_why(docker, failed, "was taken back, because new tasks did not stay healthy"))
        rejected = [
            each.name for each in services if len(each.rejected - known_tasks) >= _HOPELESS and not each.converged
        ]
        if rejected:
            raise DeployError(_why(docker, rejected, "cannot start on any node"))
        waiting = [each for each in services if not each.converged]
        calm = 0 if waiting or not services else calm + 1
        line = ", ".join(f"{each.name} {each.running}/{each.desired}" for each in waiting)
        if line and line != said:
            say(f"  waiting for {line}")
            said = line
        if time.monotonic() > deadline:
            raise DeployError(_why(docker, [each.name for each in waiting], f"did not converge in {seconds:.0f} s"))
        time.sleep(_POLL_SECONDS)


def roll_back(docker: Docker, services: Collection[str]) -> None:
    """Give these services their previous definition."""
    for name in services:
        docker.call("service", "rollback", "--detach", name)


def _service(docker: Docker, found: dict[str, Any]) -> Service:
    name, spec = found["Spec"]["Name"], found["Spec"]
    update = found.get("UpdateStatus") or {}
    tasks = docker.rows("service", "ps", "--no-trunc", name)
    states = [str(task["CurrentState"]).split()[0] for task in tasks]
    wanted = [str(task["DesiredState"]) for task in tasks]
    desired = (
        int(spec["Mode"]["Replicated"]["Replicas"])
        if "Replicated" in spec["Mode"]
        # A global service has as many as there are nodes for it: one at the least, or a label is missing.
        else max(1, sum(state in {"Running", "Ready"} for state in wanted))
    )
    return Service(
        name=name,
        definition=json.dumps(spec, sort_keys=True),
        update_state=str(update.get("State", "")),
        update_message=str(update.get("Message", "")),
        running=sum(state == "Running" and want == "Running" for state, want in zip(states, wanted, strict=True)),
        desired=desired,
        # The newest task says how the latest run went.
        completed=int(bool(states) and states[0] == "Complete"),
        rejected=frozenset(str(task["ID"]) for task, state in zip(tasks, states, strict=True) if state == "Rejected"),
        one_shot=_ONE_SHOT in spec["Labels"],
        can_roll_back=bool(found.get("PreviousSpec")),
    )


def _why(docker: Docker, names: list[str], what: str) -> str:
    lines = [f"{', '.join(names)} {what}."]
    for name in names:
        tasks = docker.rows("service", "ps", "--no-trunc", name)[:3]
        lines += [f"  {task['Name']}: {task['CurrentState']} {task['Error']}".rstrip() for task in tasks]
        lines.append(f"  its log: docker service logs --tail 50 {name}")
    return "\n".join(lines)
