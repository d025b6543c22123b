"""docker-compose.yml: the same platform as stack.yml, on one machine, and safe without a word of configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import pytest

from infra.swarm.compose_files import default_of, variables
from services.cli.deployment_secrets import NAMES
from tests.unit.deployment import (
    COMPOSE,
    MOUNTED,
    ROOT,
    STACK,
    TLS,
    by_name,
    mounts,
    seconds,
    secrets_named,
    with_defaults,
)

SERVICES = COMPOSE["services"]
ONLY_HERE = {"secrets": "Swarm has its own secrets", "prometheus": "a profile; clusters mostly have a Prometheus"}
SAME = (
    "image", "command", "entrypoint", "hostname", "healthcheck", "networks", "configs", "dns", "sysctls", "logging",
    "read_only", "cap_drop", "stop_grace_period",
)  # fmt: skip
# Why one of the two has another default.
DEFAULTS_DIFFER = {
    "SLUICE_HTTP_PORT": "on one machine 80 may be taken, and is not needed to try it",
    "SLUICE_HTTPS_PORT": "likewise 443",
    "SLUICE_POSTGRES_SHARED_BUFFERS": "one machine holds everything; a storage node has 64 GB",
    "SLUICE_REGISTRY": "one machine builds what it runs, and pulls none of it; a Swarm pulls, so it must be told from where",
    "SLUICE_PUBLIC_URL": "this machine knows its own name; a cluster's is anybody's guess, so Swarm insists on it",
}
VARIABLES_ONLY_HERE = {
    "SLUICE_NGINX_TLS_CERTIFICATE": "a file in a folder; a secret, whose path is the default, on Swarm",
    "SLUICE_NGINX_TLS_KEY": "likewise",
}
ONE_SHOT = {"secrets", "migrate"}

each_service = pytest.mark.parametrize("name", STACK["services"])


def test_the_services_are_those_of_the_stack() -> None:
    assert set(SERVICES) == set(STACK["services"]) | set(ONLY_HERE)


@each_service
@pytest.mark.parametrize("key", SAME)
def test_a_service_is_run_in_the_same_way(name: str, key: str) -> None:
    assert by_name(SERVICES[name].get(key)) == by_name(STACK["services"][name].get(key))


@each_service
def test_a_service_has_the_same_variables(name: str) -> None:
    here, there = (by_name(file["services"][name].get("environment", {})) for file in (COMPOSE, STACK))

    assert {key: value for key, value in here.items() if key not in VARIABLES_ONLY_HERE} == there


@each_service
def test_a_service_has_the_same_volumes(name: str) -> None:
    only_here = {("volume", MOUNTED), ("bind", "/run/tls")}

    assert mounts(SERVICES[name]) - only_here == mounts(STACK["services"][name])


def test_the_networks_are_closed_in_the_same_way() -> None:
    closed = [{name: bool(network and network.get("internal")) for name, network in file["networks"].items()}
              for file in (COMPOSE, STACK)]  # fmt: skip

    assert closed[0] == closed[1]
    assert closed[0] == {"edge": False, "app": True, "data": True}


def test_a_variable_has_the_same_default_unless_there_is_a_reason() -> None:
    here, there = (
        {one.name: (default_of(one), one.required) for file in files for one in variables(file)}
        for files in ([COMPOSE], [STACK, TLS])
    )

    assert {name for name in here.keys() & there if here[name] != there[name]} == set(DEFAULTS_DIFFER)


@pytest.mark.parametrize("file", [COMPOSE, STACK, TLS], ids=["docker-compose.yml", "stack.yml", "tls.yml"])
def test_a_variable_has_one_default_in_a_file(file: dict[str, Any]) -> None:
    found: dict[str, set[str]] = {}
    for one in variables(file):
        found.setdefault(one.name, set()).add(default_of(one))

    assert {name: defaults for name, defaults in found.items() if len(defaults) > 1} == {}


def test_nothing_has_to_be_set() -> None:
    assert not [one.name for one in variables(COMPOSE) if one.required]


def test_only_nginx_is_open_to_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"nginx", "prometheus"}
    assert SERVICES["prometheus"]["profiles"] == ["monitoring"]
    assert [port["host_ip"] for port in published["prometheus"]] == ["127.0.0.1"]


def test_only_a_profile_adds_services() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"prometheus"}


@pytest.mark.parametrize("name", SERVICES)
def test_who_reads_a_secret_waits_until_it_is_made(name: str) -> None:
    reads = secrets_named(SERVICES[name])

    if name == "secrets":
        return
    assert reads <= set(NAMES)
    assert (("volume", MOUNTED) in mounts(SERVICES[name])) == bool(reads)
    if reads:
        assert "secrets" in _waited_for(name)


def _waited_for(name: str) -> set[str]:
    direct = {
        other
        for other, how in SERVICES[name].get("depends_on", {}).items()
        if how["condition"] != "service_started"
    }  # fmt: skip
    return direct.union(*(_waited_for(other) for other in direct))


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_written_by_one_service_and_only_read_by_the_rest(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        if mount["target"] == MOUNTED:
            assert mount["source"] == "secrets"
            assert mount.get("read_only", False) is (name != "secrets")
            # Else the volume would belong to whoever owns the folder in the image that comes first.
            assert mount["volume"] == {"nocopy": True}


def test_who_makes_secrets_can_do_nothing_else() -> None:
    service = SERVICES["secrets"]

    assert service["network_mode"] == "none"
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert mounts(service) == {("volume", MOUNTED)}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_come(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert (how["condition"] == "service_completed_successfully") == (other in ONE_SHOT), other


def test_the_models_hold_nobody_up() -> None:
    assert not {"emb", "llm"} & set().union(*(_waited_for(name) for name in SERVICES))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_comes_back_after_a_restart_of_the_machine(name: str) -> None:
    expected = {"secrets": None, "migrate": "on-failure"}.get(name, "unless-stopped")

    assert SERVICES[name].get("restart") == expected
    assert SERVICES[name]["logging"] == COMPOSE["x-logging"]
    assert "memory" in SERVICES[name]["deploy"]["resources"]["limits"]
    if name not in ONE_SHOT:
        assert seconds(SERVICES[name]["stop_grace_period"]) >= 30


def test_each_of_our_images_is_built_by_one_service_and_pulled_by_none() -> None:
    ours = {
        name: service for name, service in with_defaults(SERVICES).items() if service["image"].startswith("sluice/")
    }
    builders = [service["image"] for service in ours.values() if "build" in service]

    assert sorted(builders) == sorted({service["image"] for service in ours.values()})
    assert {service["pull_policy"] for service in ours.values()} == {"never"}
    for service in ours.values():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            # `sluice/api:0.1.0` is the target `api`; nginx has a file of its own.
            target = service["image"].split("/")[1].split(":")[0]
            assert service["build"].get("target", "nginx") == target


def test_what_is_mounted_from_the_checkout_is_there() -> None:
    for config in COMPOSE["configs"].values():
        assert (ROOT / config["file"]).is_file()


@pytest.mark.parametrize("profile", [[], ["--profile", "monitoring"]], ids=["plain", "monitoring"])
def test_docker_reads_the_file(profile: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}

    def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    if shutil.which("docker") is None or compose("version").returncode != 0:
        pytest.skip("docker compose is not installed")

    done = compose("--env-file", os.devnull, *profile, "config", "--quiet")

    assert (done.returncode, done.stderr) == (0, "")
