"""SM: everything that may happen to jobs, in random orders, on the real SQL of the job engine."""

from __future__ import annotations

import time
from itertools import count
from uuid import uuid4

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.lab import Lab
from tests.chaos.results import Result, exactly, measured
from tests.chaos.verify import Violation
from tests.integration.job_bench import Bench
from tests.integration.job_machine import JobMachine


def run(lab: Lab) -> Result:
    examples, steps = lab.choose(ci=(40, 30), long=(2_000, 50))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        # Not `explain`, which traces every line.
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    bench = Bench(lab.stores, lab.customer().tenant_id, f"chaos.{uuid4().hex}")
    machines = count()

    class Machine(JobMachine):
        def __init__(self) -> None:
            super().__init__(bench)
            next(machines)

    violations: list[Violation] = []
    began = time.monotonic()
    with lab.platform.away("dispatcher"):
        try:
            run_state_machine_as_test(Machine, settings=chosen)
        except AssertionError as broken:
            notes = "\n".join(getattr(broken, "__notes__", []))
            violations.append(Violation("invariant", str(broken), notes))
    number, seconds = next(machines), time.monotonic() - began
    return Result(
        "SM",
        f"state machine of the job engine, {examples} examples of up to {steps} steps",
        counts=[exactly("invariants broken", len(violations), "", 0), measured("examples run", number, "")],
        times=[measured("examples a second", number / seconds, "1/s")],
        violations=violations,
    )
