"""How many threads a model gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice.threads import cgroup_quota, threads_for


@pytest.mark.parametrize(
    ("affinity", "quota", "threads"),
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (2, 16.0, 2), (4, 0.25, 1)],
)
def test_the_lesser_of_affinity_and_quota_decides(affinity: int, quota: float | None, threads: int) -> None:
    assert threads_for(affinity, quota) == threads


def test_a_quota_of_the_unified_hierarchy_is_read(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5


def test_no_limit_of_the_unified_hierarchy_is_no_quota(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [("200000", 2.0), ("-1", None)])
def test_a_quota_of_the_first_hierarchy_is_read(tmp_path: Path, quota: str, expected: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cgroup_quota(tmp_path) == expected


def test_a_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
