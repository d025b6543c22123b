"""Memory that a process can still take."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice.memory import free_memory, give_back_free_memory


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  16000000 kB\nMemAvailable:  8000000 kB\n", encoding="ascii")
    return file


def hierarchy(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(content, encoding="ascii")
    return folder


def test_without_a_cgroup_it_is_what_the_machine_has_left(machine: Path, tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", machine) == 8_000_000 * 1024


def test_it_is_what_the_cgroup_has_left_with_files_that_were_read_long_ago(machine: Path, tmp_path: Path) -> None:
    group = hierarchy(tmp_path / "v2", max="1000000", current="700000", stat="anon 1\ninactive_file 200000")
    assert free_memory(group, machine) == 500_000


def test_a_cgroup_without_a_limit_leaves_what_the_machine_has(machine: Path, tmp_path: Path) -> None:
    group = hierarchy(tmp_path / "v2", max="max\n", current="700000", stat="inactive_file 200000")
    assert free_memory(group, machine) == 8_000_000 * 1024


def test_the_first_version_of_cgroups_counts_as_well(machine: Path, tmp_path: Path) -> None:
    files = {"limit_in_bytes": "1000000", "usage_in_bytes": "1200000", "stat": "total_inactive_file 100000"}
    hierarchy(tmp_path / "v1" / "memory", **files)
    assert free_memory(tmp_path / "v1", machine) == 0


def test_where_nothing_is_known_it_says_so(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", tmp_path / "none") is None


def test_giving_memory_back_changes_nothing_that_is_used() -> None:
    kept = bytearray(b"x" * 10_000_000)
    give_back_free_memory()
    assert kept == b"x" * 10_000_000
