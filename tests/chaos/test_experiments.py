"""Every fault experiment at its small size: what must hold on any machine, however busy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.experiments import EXPERIMENTS, conduct
from tests.chaos.lab import Lab, running_lab
from tests.chaos.results import CI

# The state machine has a test of its own beside the job engine's.
_IN_THIS_PROFILE = [name for name in EXPERIMENTS if name != "SM"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A platform of its own: what is broken here must not look like another test's failure."""
    with running_lab(CI) as lab:
        yield lab


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _IN_THIS_PROFILE)
def test_nothing_is_lost_doubled_or_stuck(lab: Lab, name: str) -> None:
    assert conduct(lab, name).missed(CI) == []
