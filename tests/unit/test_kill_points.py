"""Faults on command: only where the environment is `test`, and each of them once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sluice.kill_points import KillPoint, arm, armed, disarm

PROCESSES = ("services.workers.main", "services.workers.dispatcher")
STRUCK = "from sluice.kill_points import *; load_kill_points(); strike(KillPoint.AFTER_CLAIM, 'one'); print('alive')"


def started(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=others | variables, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("environment", [{}, {"SLUICE_ENVIRONMENT": "production"}])
def test_a_process_in_production_does_not_start_with_them(
    process: str, environment: dict[str, str], tmp_path: Path
) -> None:
    urls = {
        "SLUICE_DATABASE_URL": "postgresql+psycopg://a@127.0.0.1:9/a",
        "SLUICE_DATABASE_SYSTEM_URL": "postgresql+psycopg://a@127.0.0.1:9/a",
        "SLUICE_BROKER_URL": "amqp://127.0.0.1:9",
    }

    refused = started("-m", process, SLUICE_KILL_POINTS=str(tmp_path), **urls, **environment)

    assert refused.returncode == 78
    assert "so production refuses them: remove SLUICE_KILL_POINTS" in refused.stderr


def test_an_armed_point_strikes_its_subject_once(tmp_path: Path) -> None:
    variables = {"SLUICE_ENVIRONMENT": "test", "SLUICE_KILL_POINTS": str(tmp_path)}
    arm(tmp_path, KillPoint.AFTER_CLAIM, "another")
    arm(tmp_path, KillPoint.AFTER_CLAIM, "one")

    first, second = (started("-c", STRUCK, **variables) for _ in range(2))

    assert (first.returncode, "alive" in first.stdout) == (-9, False)
    assert (second.returncode, second.stdout.splitlines()[-1]) == (0, "alive")
    assert armed(tmp_path) == [(KillPoint.AFTER_CLAIM, "another")]
    disarm(tmp_path)
    assert armed(tmp_path) == []
