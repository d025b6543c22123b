"""The embedded platform with its real servers: what survives, what is left behind, what is said when it cannot start."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from infra.embedded.failures import PartFailedError, PlatformError, PortTakenError
from infra.embedded.platform import Platform
from tests.integration.embedded_home import (
    ROOT,
    STORES,
    end,
    plain,
    processes_of,
    reachable_by_all,
    read_from_every_store,
    until,
    up_command,
    write_to_every_store,
)


@pytest.fixture(scope="module", autouse=True)
def no_variables_of_another_platform() -> Iterator[None]:
    """Variables that the caller has set would win over those of the platform under test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SLUICE_"):
                patch.delenv(name)
        yield


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of its own; whatever happens in the test, nothing keeps running."""
    path = tmp_path / "home"
    yield path
    end(path)


@pytest.fixture(scope="module")
def shared_home(no_variables_of_another_platform: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of one platform for all tests that leave it as it was."""
    path = tmp_path_factory.mktemp("shared") / "home"
    yield path
    end(path)


@pytest.fixture(scope="module")
def platform(shared_home: Path) -> Platform:
    """A platform whose stores are up."""
    platform = Platform(shared_home, ROOT)
    platform.up(only_stores=True)
    return platform


def test_every_store_keeps_its_data_and_its_address_over_down_and_up(home: Path) -> None:
    first = Platform(home, ROOT)
    assert first.up(only_stores=True)
    variables = first.environment()
    write_to_every_store(variables)

    first.down()
    assert processes_of(home) == []
    second = Platform(home, ROOT)
    assert second.up(only_stores=True)

    assert second.environment() == variables
    assert read_from_every_store(variables) == {"postgres": "kept", "rabbitmq": "kept", "s3": "kept", "qdrant": "kept"}


def test_a_second_up_finds_everything_running_and_touches_nothing(platform: Platform, shared_home: Path) -> None:
    before = {part.name: part.pids for part in platform.status()}

    assert not Platform(shared_home, ROOT).up(only_stores=True)

    assert {part.name: part.pids for part in platform.status()} == before


def test_down_is_no_error_when_nothing_runs(home: Path) -> None:
    platform = Platform(home, ROOT)

    platform.down()
    platform.down()

    assert all(part.state == "STOPPED" for part in platform.status())


def test_two_platforms_on_one_machine_do_not_meet(platform: Platform, tmp_path: Path) -> None:
    other = Platform(tmp_path / "other", ROOT)
    try:
        other.up(only_stores=True)

        mine, its = platform.environment(), other.environment()
        assert {part.address for part in platform.status()}.isdisjoint(part.address for part in other.status())
        with psycopg.connect(plain(mine["SLUICE_DATABASE_OWNER_URL"])) as connection:
            connection.execute("CREATE TABLE mine AS SELECT 1")
        with psycopg.connect(plain(its["SLUICE_DATABASE_OWNER_URL"])) as connection:
            assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)
    finally:
        end(tmp_path / "other")

    for name in STORES:
        platform.wait_ready(name)


@pytest.mark.parametrize("name", STORES)
def test_a_crashed_part_comes_back_by_itself(platform: Platform, name: str) -> None:
    (before, *_) = platform.pids(name)

    platform.kill(name)
    until(lambda: platform.pids(name)[:1] not in ([], [before]))

    platform.wait_ready(name)


def test_a_stopped_part_stays_away_until_it_is_started(platform: Platform) -> None:
    url = plain(platform.environment()["SLUICE_DATABASE_URL"])

    platform.stop("postgres")
    assert platform.pids("postgres") == []
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    platform.start("postgres")

    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_the_death_of_the_supervisor_leaves_no_process_and_loses_no_data(platform: Platform, shared_home: Path) -> None:
    variables = platform.environment()
    write_to_every_store(variables)
    supervisor = int((shared_home / "run" / "supervisord.pid").read_text())

    os.kill(supervisor, signal.SIGKILL)
    until(lambda: processes_of(shared_home) == [])
    platform.up(only_stores=True)

    assert read_from_every_store(variables)["postgres"] == "kept"


def test_down_ends_what_a_dead_supervisor_left(home: Path) -> None:
    Platform(home, ROOT)
    orphan = subprocess.Popen(["/bin/sleep", "600"], env={"SLUICE_EMBEDDED_HOME": str(home)})
    stranger = subprocess.Popen(["/bin/sleep", "600"], env={"SLUICE_EMBEDDED_HOME": f"{home}-other"})

    Platform(home, ROOT).down()

    assert not psutil.pid_exists(orphan.pid)
    assert psutil.pid_exists(stranger.pid)
    stranger.kill()
    for process in (orphan, stranger):
        process.wait()


def test_a_taken_port_is_named_with_its_part_and_holder_and_nothing_stays_running(home: Path) -> None:
    platform = Platform(home, ROOT)
    platform.environment()
    port = json.loads((home / "ports.json").read_text())["redis"]
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", port))
        squatter.listen()

        with pytest.raises(PortTakenError, match=rf"redis .* port {port} is taken by process {os.getpid()} "):
            platform.up(only_stores=True)

    assert processes_of(home) == []


def test_a_part_that_dies_at_its_start_is_named_with_exit_code_and_log_and_the_rest_is_stopped(home: Path) -> None:
    platform = Platform(home, ROOT)
    (home / "data" / "qdrant").write_text("in the way of the folder")

    with pytest.raises(
        PartFailedError, match=r"(?s)qdrant ended while it started \(exit status \d+.*\).*NotADirectoryError"
    ):
        platform.up(only_stores=True)

    assert processes_of(home) == []


def test_ctrl_c_while_it_starts_stops_everything(home: Path) -> None:
    with up_command(home) as up:
        until(lambda: any(process.name == "beam.smp" for process in processes_of(home)))

        up.send_signal(signal.SIGINT)

        assert up.wait() == 130
    assert processes_of(home) == []


def test_in_the_foreground_ctrl_c_stops_everything(home: Path) -> None:
    with up_command(home, "--foreground") as up:
        assert up.stderr is not None
        assert any("Ctrl-C" in line for line in up.stderr)

        up.send_signal(signal.SIGINT)

        assert up.wait() == 130
    assert processes_of(home) == []


def test_all_servers_listen_on_the_loopback_address_only(platform: Platform, shared_home: Path) -> None:
    ours = {process.pid for process in processes_of(shared_home)}

    listening = [it for it in psutil.net_connections("inet") if it.status == "LISTEN" and it.pid in ours]

    assert len(listening) >= len(STORES)
    assert {str(it.laddr[0]) for it in listening if it.laddr} <= {"127.0.0.1", "::1"}


def test_secrets_can_be_read_by_their_owner_only_and_are_on_no_command_line(
    platform: Platform, shared_home: Path
) -> None:
    files = [shared_home / "env", *(shared_home / "secrets").iterdir()]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)

    secrets = [file.read_text().strip() for file in (shared_home / "secrets").iterdir()]
    shown = " ".join(process.arguments for process in processes_of(shared_home))

    assert secrets
    assert [secret for secret in secrets if secret in shown] == []


def test_the_roles_of_the_services_are_not_above_row_level_security(platform: Platform) -> None:
    with psycopg.connect(plain(platform.environment()["SLUICE_DATABASE_OWNER_URL"])) as connection:
        roles = connection.execute(
            "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname LIKE 'sluice%' ORDER BY 1"
        ).fetchall()

    assert roles == [("sluice_app", False, False), ("sluice_owner", False, False), ("sluice_system", False, False)]


def test_russian_text_is_searched_by_its_stems(platform: Platform) -> None:
    with psycopg.connect(plain(platform.environment()["SLUICE_DATABASE_OWNER_URL"])) as connection:
        found = connection.execute(
            "SELECT to_tsvector('russian', 'Договоры подписаны') @@ plainto_tsquery('russian', 'договора')"
        ).fetchone()

    assert found == (True,)


def test_a_variable_of_the_caller_reaches_the_services_in_either_form(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_JOBS_LEASE_SECONDS", "5")
    monkeypatch.setenv("SLUICE_REDIS_URL_FILE", str(tmp_path / "redis_url"))

    variables = Platform(home, ROOT).environment()

    assert variables["SLUICE_JOBS_LEASE_SECONDS"] == "5"
    assert "SLUICE_REDIS_URL" not in variables


def test_an_unknown_part_is_refused_with_the_names_of_all(home: Path) -> None:
    with pytest.raises(PlatformError, match=r"no part 'postgresql'; there are .*postgres"):
        Platform(home, ROOT).stop("postgresql")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_run_it(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    if not reachable_by_all(Path(sys.executable).resolve(), Path(psycopg.__file__), ROOT):
        pytest.skip("this checkout or its Python lies in a folder that is closed to other users")
    # Not below tmp_path, which is closed to other users.
    home = Path(f"/var/tmp/sluice-{tmp_path.name}-{os.getpid()}")  # noqa: S108 - made for this user alone, below
    home.mkdir(mode=0o700)
    shutil.chown(home, nobody.pw_uid, nobody.pw_gid)

    def run(command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "infra.embedded", *command.split()],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "SLUICE_HOME": str(home)},
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run("up --only-stores")
        parts = json.loads(run("status --json"))
        users = {psutil.Process(pid).username() for part in parts for pid in part["pids"]}
        assert users == {"nobody"}
    finally:
        run("down")
        shutil.rmtree(home)
