"""The secrets of a deployment: what stands in the files, who may read them, and that nothing is lost by asking again."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from kombu.utils.url import parse_url
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from services.cli.deployment_secrets import NAMES, SECRETS, missing
from services.cli.exit_codes import CommandError, Exit
from services.cli.secret_rotation import INSTEAD, ROTATIONS
from sluice.db.roles import APP, SYSTEM, Login

PAIRS = [[file.name for file in secret.files] for secret in SECRETS if len(secret.files) > 1]


def sluice(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`sluice secrets …`, as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", "secrets", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture(scope="module")
def complete() -> dict[str, str]:
    """All files of a new deployment."""
    return missing({})


@pytest.fixture
def folder(tmp_path: Path, complete: dict[str, str]) -> Path:
    """A folder with all of them."""
    path = tmp_path / "secrets"
    path.mkdir(mode=0o700)
    for name, text in complete.items():
        (path / name).write_text(text)
        (path / name).chmod(0o600)
    return path


# What stands in the files, read as those read it who need it.


@pytest.mark.parametrize(
    ("name", "user", "database"),
    [
        ("database_url", "sluice_app", "sluice"),
        ("database_system_url", "sluice_system", "sluice"),
        ("database_owner_url", "sluice_owner", "sluice"),
        ("database_admin_url", "postgres", "postgres"),
    ],
)
def test_a_database_url_names_login_server_and_database(
    complete: dict[str, str], name: str, user: str, database: str
) -> None:
    url = make_url(complete[name].removesuffix("\n"))

    assert (url.drivername, url.username, url.host, url.port, url.database) == (
        "postgresql+psycopg", user, "postgres", 5432, database,
    )  # fmt: skip
    read = conninfo_to_dict(url.set(drivername="postgresql").render_as_string(hide_password=False))
    assert re.fullmatch("[0-9a-f]{32}", str(read["password"]))


def test_the_superuser_has_the_password_that_the_server_is_given(complete: dict[str, str]) -> None:
    assert make_url(complete["database_admin_url"].strip()).password == complete["postgres_password"].strip()


def test_the_broker_is_configured_with_the_login_of_its_url(complete: dict[str, str]) -> None:
    configured = dict(line.split(" = ") for line in complete["rabbitmq_credentials"].splitlines())
    url = parse_url(complete["broker_url"].strip())

    assert (url["transport"], url["hostname"], url["port"]) == ("amqp", "rabbitmq", 5672)
    assert configured == {
        "default_user": url["userid"],
        "default_pass": url["password"],
        "default_vhost": url["virtual_host"],
    }
    assert (url["userid"], url["virtual_host"]) == ("sluice", "sluice")


def test_redis_is_configured_with_the_password_of_its_url(complete: dict[str, str]) -> None:
    connection = redis.Redis.from_url(complete["redis_url"].strip()).connection_pool.connection_kwargs

    assert (connection["host"], connection["port"], connection["db"]) == ("redis", 6379, 0)
    assert complete["redis_config"].split() == ["requirepass", connection["password"]]


def test_qdrant_is_configured_with_the_key_that_its_clients_get(complete: dict[str, str]) -> None:
    configured = yaml.safe_load(complete["qdrant_config"])

    assert configured == {"service": {"api_key": complete["qdrant_api_key"].strip()}}


def test_keys_and_passwords_have_their_forms(complete: dict[str, str]) -> None:
    forms = {
        "postgres_password": "[0-9a-f]{32}",
        "s3_access_key": "[A-Za-z0-9]{20}",
        "s3_secret_key": "[A-Za-z0-9]{40}",
        "qdrant_api_key": "[0-9a-f]{32}",
        "admin_password": "[A-Za-z0-9_-]{16}",
    }

    for name, form in forms.items():
        assert re.fullmatch(form + "\n", complete[name]), name
    assert isinstance(load_pem_private_key(complete["auth_private_key"].encode(), None), Ed25519PrivateKey)


def test_no_secret_is_like_another_or_like_that_of_another_deployment(complete: dict[str, str]) -> None:
    def values(files: dict[str, str]) -> list[str]:
        firsts = [(secret.files[0], files[secret.files[0].name]) for secret in SECRETS]
        return [str(urlsplit(text).password or file.secret_in(text)) for file, text in firsts if "KEY" not in text]

    both = [*values(complete), *values(missing({}))]

    assert len(set(both)) == len(both)


# Folders that are empty, complete, or something between.


def test_a_new_folder_gets_every_file_for_its_owner_alone(tmp_path: Path) -> None:
    done = sluice("new", tmp_path / "deep" / "secrets")

    assert done.returncode == Exit.OK, done.stderr
    made = tmp_path / "deep" / "secrets"
    assert mode(made) == 0o700
    assert {file.name: mode(file) for file in made.iterdir()} == dict.fromkeys(NAMES, 0o600)
    assert done.stdout.split() == list(NAMES)


def test_names_are_printed_and_never_values(tmp_path: Path) -> None:
    done = sluice("new", tmp_path / "secrets")

    printed = done.stdout + done.stderr
    words = chain.from_iterable(re.findall(r"[\w-]{12,}", text) for text in contents(tmp_path / "secrets").values())
    values = {word for word in words if word not in NAMES} - {"default_pass", "default_user", "default_vhost"}
    assert len(values) > 10
    assert not [value for value in values if value in printed]


def test_a_shared_volume_can_be_read_by_all_and_written_by_none(tmp_path: Path) -> None:
    sluice("new", tmp_path / "secrets", "--readable")

    assert mode(tmp_path / "secrets") == 0o755
    assert {mode(file) for file in (tmp_path / "secrets").iterdir()} == {0o444}


def test_asking_again_changes_nothing_and_says_so(folder: Path) -> None:
    before = contents(folder)

    done = sluice("new", folder)

    assert (done.returncode, done.stdout) == (Exit.OK, "")
    assert "Nothing to do" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_is_made_in_agreement_with_the_rest(complete: dict[str, str], name: str) -> None:
    made = missing({other: text for other, text in complete.items() if other != name})

    assert made.keys() == {name}
    assert (made[name] == complete[name]) == any(name in pair for pair in PAIRS)


def test_a_file_is_made_alone_and_the_others_later_agree_with_it(tmp_path: Path) -> None:
    sluice("new", tmp_path, "--only", "redis_url", "--only", "qdrant_config")
    first = contents(tmp_path)
    sluice("new", tmp_path)
    then = contents(tmp_path)

    assert first.keys() == {"redis_url", "qdrant_config"}
    assert {name: then[name] for name in first} == first
    assert missing(then) == {}
    assert then["redis_config"].split()[1] in first["redis_url"]


def test_what_a_person_has_written_is_understood(complete: dict[str, str]) -> None:
    written = {
        "rabbitmq_credentials": "# ours\ndefault_user=sluice\n default_pass = theirs-1\n",
        "redis_url": "rediss://someone:theirs-2@cache.example:6380/1\n",
        "qdrant_config": "log_level: INFO\nservice:\n  read_only_api_key: no\n  api_key: 'theirs-3'\n",
        "database_admin_url": "postgresql+psycopg://root:theirs-4@db.example/postgres",
    }

    made = missing(written)

    assert parse_url(made["broker_url"].strip())["password"] == "theirs-1"
    assert made["redis_config"] == "requirepass theirs-2\n"
    assert made["qdrant_api_key"] == "theirs-3\n"
    assert made["postgres_password"] == "theirs-4\n"
    assert made.keys() | written.keys() == complete.keys()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"redis_url": "redis://:another@redis:6379/0"}, "redis_config and redis_url hold different passwords"),
        ({"postgres_password": "another"}, "postgres_password and database_admin_url hold different passwords"),
        ({"s3_access_key": "\n"}, "s3_access_key is empty"),
    ],
)
def test_files_that_contradict_one_another_are_named_and_left(
    folder: Path, changed: dict[str, str], sentence: str
) -> None:
    for name, text in changed.items():
        (folder / name).write_text(text)
    (folder / "admin_password").unlink()
    before = contents(folder)

    done = sluice("new", folder)

    assert done.returncode == Exit.CONFLICT
    assert sentence in done.stderr
    assert "another@" not in done.stderr
    assert contents(folder) == before


def test_a_password_that_would_break_the_other_file_is_not_copied_into_it() -> None:
    with pytest.raises(CommandError, match=r"redis_url cannot be made from redis_config") as refused:
        missing({"redis_config": 'requirepass "p@ss/word"\n'})

    assert "p@ss" not in str(refused.value)


def test_a_file_is_replaced_only_by_name_and_by_force_and_the_old_one_is_kept(folder: Path) -> None:
    before = contents(folder)

    without_force = sluice("new", folder, "--only", "admin_password")
    without_name = sluice("new", folder, "--force")
    unknown = sluice("new", folder, "--only", "admin_pasword", "--force")
    forced = sluice("new", folder, "--only", "admin_password", "--force")

    after = contents(folder)
    assert (without_force.returncode, without_force.stdout) == (Exit.OK, "")
    assert (without_name.returncode, unknown.returncode) == (Exit.USAGE, Exit.USAGE)
    assert forced.stdout.split() == ["admin_password"]
    assert after["admin_password"] != before["admin_password"]
    assert after["admin_password.previous"] == before["admin_password"]
    assert mode(folder / "admin_password.previous") == 0o600


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_a_pair_is_renewed_together_and_one_of_it_only_repaired(folder: Path, pair: list[str]) -> None:
    before = contents(folder)
    sluice("new", folder, "--force", "--only", pair[0])
    repaired = contents(folder)
    sluice("new", folder, "--force", *(word for name in pair for word in ("--only", name)))
    renewed = contents(folder)

    assert repaired[pair[0]] == before[pair[0]]
    assert all(renewed[name] != before[name] for name in pair)
    assert missing({name: renewed[name] for name in NAMES}) == {}


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    below_a_file = sluice("new", tmp_path / "file" / "secrets")

    assert below_a_file.returncode == Exit.FAILED
    assert "Not a directory" in below_a_file.stderr
    assert "Traceback" not in below_a_file.stderr


def test_without_the_package_for_keys_a_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    without = "import sys; sys.modules['cryptography'] = None; from services.cli.main import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", without, "secrets", "new", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == Exit.FAILED
    assert "sluice[api,cli]" in done.stderr
    assert list(tmp_path.iterdir()) == []


# Replacing the secrets of a deployment that runs.


@pytest.mark.parametrize(("name", "role"), [("database_url", APP), ("database_system_url", SYSTEM)])
def test_a_rotated_database_url_is_the_same_database_by_a_new_login_of_the_role(
    folder: Path, name: str, role: str
) -> None:
    (folder / name).write_text(f"postgresql+psycopg://{role}:old@db.example:6432/acme?sslmode=require\n")
    (folder / name).chmod(0o444)

    done = sluice("rotate", folder, name)
    first = make_url((folder / name).read_text().strip())
    sluice("rotate", folder, name)
    second = make_url((folder / name).read_text().strip())

    assert (done.returncode, done.stdout) == (Exit.OK, f"{name}\n")
    assert "services.api.prepare" in done.stderr
    assert re.fullmatch(rf"{role}_[0-9a-f]{{8}}", str(first.username))
    assert re.fullmatch(rf"{role}_[0-9a-f]{{8}}", str(second.username))
    assert len({"old", first.password, second.password}) == 3
    assert (second.host, second.port, second.database, second.query) == (
        "db.example", 6432, "acme", {"sslmode": "require"},
    )  # fmt: skip
    assert make_url((folder / f"{name}.previous").read_text().strip()) == first
    assert (mode(folder / name), mode(folder / f"{name}.previous")) == (0o444, 0o600)
    assert Login.of_url(role, (folder / name).read_text().strip()).user == second.username


def test_a_rotated_signing_key_is_a_new_one_and_nothing_else_changes(folder: Path) -> None:
    before = contents(folder)

    done = sluice("rotate", folder, "auth_private_key")

    after = contents(folder)
    assert done.returncode == Exit.OK
    assert after.pop("auth_private_key.previous") == before["auth_private_key"]
    assert isinstance(load_pem_private_key(after["auth_private_key"].encode(), None), Ed25519PrivateKey)
    assert {name for name in NAMES if after[name] != before[name]} == {"auth_private_key"}
    assert sluice("new", folder).stdout == ""


def test_every_secret_can_be_rotated_or_says_what_is_needed_instead() -> None:
    assert set(ROTATIONS) | set(INSTEAD) == set(NAMES)
    assert not set(ROTATIONS) & set(INSTEAD)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("broker_url", "rabbitmqctl change_password"),
        ("redis_config", "restart redis"),
        ("s3_secret_key", "restart the object store"),
        ("qdrant_api_key", "restart qdrant"),
        ("postgres_password", "ALTER ROLE postgres PASSWORD"),
        ("admin_password", "first_admin"),
        ("nonsense", "There is no secret 'nonsense'"),
    ],
)
def test_what_files_alone_cannot_rotate_is_refused_with_the_way_to_do_it(
    folder: Path, name: str, sentence: str
) -> None:
    before = contents(folder)

    done = sluice("rotate", folder, name)

    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert sentence in " ".join(done.stderr.split())
    assert contents(folder) == before


def test_what_was_never_made_is_not_rotated(tmp_path: Path) -> None:
    done = sluice("rotate", tmp_path, "database_url")

    assert done.returncode == Exit.NOT_FOUND
    assert "sluice secrets new" in done.stderr
    assert list(tmp_path.iterdir()) == []
