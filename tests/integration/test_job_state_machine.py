"""Whatever happens to jobs, in whatever order, they keep their promises."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.job_bench import Bench
from tests.integration.job_machine import JobMachine

pytestmark = pytest.mark.usefixtures("no_dispatcher")

# The same examples every time; `make chaos` looks for new ones, many more.
SOME: Final = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    # Not `explain`, which traces every line.
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


# Finding the shortest way to a fault takes minutes.
@pytest.mark.timeout(900)
def test_jobs_keep_their_promises_whatever_happens(bench: Bench) -> None:
    class Machine(JobMachine):
        def __init__(self) -> None:
            super().__init__(bench)

    run_state_machine_as_test(Machine, settings=SOME)
