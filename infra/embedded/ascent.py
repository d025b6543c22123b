"""Starting parts: everything at once that can be, each when what it depends on is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final

from infra.embedded.failures import PartFailedError
from infra.embedded.home import Home
from infra.embedded.parts import Part
from infra.embedded.ports import refuse_taken
from infra.embedded.probes import NotReady
from infra.embedded.supervision import RUNNING, Supervision, last_lines

_SHORTEST_POLL: Final = 0.02
_LONGEST_POLL: Final = 0.3

Report = Callable[[str], None]


@dataclass(frozen=True)
class Errand:
    """Something to be done once between two parts, such as bringing the schema up to date."""

    name: str
    depends_on: tuple[str, ...]
    run: Callable[[], None]


@dataclass
class _Start:
    part: Part
    begun: float
    pid: int = 0
    next_probe: float = 0.0
    pause: float = _SHORTEST_POLL


class Ascent:
    """One rise from nothing to ready."""

    def __init__(self, home: Home, supervision: Supervision, report: Report) -> None:
        self._home = home
        self._supervision = supervision
        self._report = report
        self._ready: set[str] = set()
        self._starting: dict[str, _Start] = {}
        self._running_errands: dict[str, tuple[float, Future[None]]] = {}
        self.started: list[Part] = []

    def rise(self, steps: Sequence[Part | Errand]) -> None:
        """Return when every part is ready and every errand done; `PartFailedError` as soon as one cannot be."""
        waiting = list(steps)
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="errand") as errands:
            while waiting or self._starting or self._running_errands:
                for step in [one for one in waiting if self._ready.issuperset(one.depends_on)]:
                    waiting.remove(step)
                    if isinstance(step, Part):
                        self._begin(step)
                    else:
                        self._running_errands[step.name] = (monotonic(), errands.submit(step.run))
                for start in list(self._starting.values()):
                    self._look_at(start)
                self._collect_errands()
                sleep(_SHORTEST_POLL)

    def _begin(self, part: Part) -> None:
        now = monotonic()
        self._starting[part.name] = _Start(part, now)
        if self._supervision.state(part.name).state in RUNNING:
            return
        part.prepare()
        refuse_taken(part.name, part.ports, self._home)
        self.started.append(part)
        self._supervision.start(part.name)

    def _look_at(self, start: _Start) -> None:
        now = monotonic()
        if now < start.next_probe:
            return
        self._refuse_death(start)
        part = start.part
        try:
            part.probe()
        except NotReady as reason:
            if now - start.begun > part.start_seconds:
                raise self._failure(part, f"was not ready after {part.start_seconds:.0f} s ({reason})") from reason
            start.next_probe = monotonic() + start.pause
            start.pause = min(_LONGEST_POLL, start.pause * 1.5)
            return
        self._done(part.name, start.begun)
        del self._starting[part.name]

    def _refuse_death(self, start: _Start) -> None:
        state = self._supervision.state(start.part.name)
        start.pid = start.pid or state.pid
        if state.state not in RUNNING or (state.pid and state.pid != start.pid):
            raise self._failure(start.part, f"ended while it started ({self._supervision.ending_of(start.part.name)})")

    def _failure(self, part: Part, what: str) -> PartFailedError:
        log = self._home.log(part.name)
        return PartFailedError(f"{part.name} {what}. The end of {log}:\n{last_lines(log)}")

    def _collect_errands(self) -> None:
        for name, (begun, outcome) in list(self._running_errands.items()):
            if outcome.done():
                outcome.result()
                self._done(name, begun)
                del self._running_errands[name]

    def _done(self, name: str, begun: float) -> None:
        self._ready.add(name)
        self._report(f"  {name:<12} ready  {monotonic() - begun:5.1f} s")
