"""What `infra/swarm/deploy` reads before it touches a swarm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.swarm.docker import DeployError, read_environment
from infra.swarm.versions import SECRETS, TLS_SECRETS, content_hashes
from tests.e2e.running import ROOT


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in SECRETS:
        (folder / name).write_text(f"{name}\n")
    return folder


def test_a_changed_secret_changes_its_hash_and_no_other(secrets: Path) -> None:
    before = content_hashes(ROOT, secrets, tls=False)
    (secrets / "redis_url").write_text("something else\n")

    after = content_hashes(ROOT, secrets, tls=False)

    assert {name for name in before if before[name] != after[name]} == {"SHA_REDIS_URL"}
    assert before.keys() >= {"SHA_DATABASE_URL", "SHA_RABBITMQ_CONFIG"}


def test_what_is_missing_is_named_with_what_to_do(secrets: Path) -> None:
    (secrets / "broker_url").unlink()

    with pytest.raises(DeployError, match=r"lacks broker_url\. Make what is missing: infra/swarm/deploy init"):
        content_hashes(ROOT, secrets, tls=False)
    with pytest.raises(DeployError, match=f"{', '.join(TLS_SECRETS)}.*yours to put there"):
        content_hashes(ROOT, secrets, tls=True)


def test_an_environment_file_gives_names_and_values(tmp_path: Path) -> None:
    file = tmp_path / "sluice.env"
    file.write_text("# comment\n\nSLUICE_VERSION=0.2.0\nSLUICE_PUBLIC_URL='https://docs.example.com'\n")

    assert read_environment(file) == {"SLUICE_VERSION": "0.2.0", "SLUICE_PUBLIC_URL": "https://docs.example.com"}


def test_a_line_that_is_no_variable_is_refused_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "sluice.env"
    file.write_text("SLUICE_VERSION=1\nexport SLUICE_STACK=other\n")

    with pytest.raises(DeployError, match="line 2: expected NAME=value"):
        read_environment(file)


def deploy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "infra/swarm/deploy"), *arguments],
        cwd=folder,
        # No engine listens there, and none is needed for these answers.
        env={**os.environ, "DOCKER_HOST": f"unix://{folder}/no.sock"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_runs_outside_of_the_environment_of_this_project(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", sys.executable, "-S", str(ROOT / "infra/swarm/deploy"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "rollback" in done.stdout


def test_without_an_engine_it_says_so_in_a_sentence(tmp_path: Path) -> None:
    done = deploy(tmp_path, "plan")

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
