"""stack.yml: what Swarm makes of it, least privilege, and that every service gets what it reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest

from infra.swarm import versions
from infra.swarm.environments import NEEDS_BESIDES, READS, environment_of, image_environment, variable_of
from services.cli.deployment_secrets import NAMES
from services.emb import main as emb
from services.llm import main as llm
from sluice.broker import celery_app
from sluice.settings import BrokerSettings, EmbServiceSettings, LlmServiceSettings
from tests.unit.deployment import (
    COMPOSE,
    ROOT,
    STACK,
    TLS,
    seconds,
    secrets_named,
    with_defaults,
)

SERVICES = STACK["services"]
OVERLAYS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "infra" / "swarm").glob("**/*.yml"))
OURS = ("nginx", "migrate", "api", "worker", "dispatcher", "emb", "llm")
STORES = ("postgres", "redis", "rabbitmq", "s3", "qdrant")
# `docker stack deploy` refuses these, or drops them with a warning at best: the platform would run without them.
NOT_ON_SWARM = {
    "refused": {"profiles", "pull_policy", "gpus", "develop", "attach", "annotations", "extends", "mem_limit",
                "mem_reservation", "cpu_shares", "cpu_quota", "cpuset", "volumes_from", "cpus"},
    "dropped": {"build", "restart", "security_opt", "shm_size", "privileged", "devices", "network_mode", "ipc", "pid",
                "userns_mode", "cgroup_parent", "container_name", "expose", "depends_on", "links", "external_links"},
    "read by the client, so that secrets in it would show": {"env_file"},
}  # fmt: skip
# Named on one machine, because what has no name is left behind by `docker compose down`.
NEEDED = {"SLUICE_PUBLIC_URL": "https://docs.example.com", "SLUICE_REGISTRY": "registry.example.com/sluice"}
# Read by many while one changes it: by a rename, under a lock.
SHARED = {"models"}
SCRATCH = {"api-tmp", "worker-tmp", "prometheus"}
SECRET_WORDS = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|API_KEY|PRIVATE_KEY|ACCESS_KEY")
# Modules in which a process reads its settings, from the file that is started on.
READ_IN = {
    "migrate": ["services/api/prepare.py"],
    "api": ["services/api/main.py"],
    "worker": ["services/workers/main.py", "services/workers/app.py", "services/workers/resources.py"],
    "dispatcher": ["services/workers/dispatcher.py"],
    "emb": ["services/emb/main.py"],
    "llm": ["services/llm/main.py", "services/llm/catalog.py"],
}

each_service = pytest.mark.parametrize("name", SERVICES)
each_of_ours = pytest.mark.parametrize("name", READS)


@each_service
def test_nothing_stands_there_that_swarm_refuses_or_drops(name: str) -> None:
    for what, keys in NOT_ON_SWARM.items():
        assert not keys & set(SERVICES[name]), what
    assert "devices" not in SERVICES[name]["deploy"]["resources"].get("reservations", {})


def test_the_file_itself_has_only_what_swarm_reads() -> None:
    known = {"version", "services", "networks", "volumes", "configs", "secrets"}

    assert {key for key in STACK if not key.startswith("x-")} <= known
    for kind in ("configs", "secrets"):
        for definition in STACK[kind].values():
            assert set(definition) == {"name", "file"}


@each_service
def test_every_service_says_how_it_is_run(name: str) -> None:
    service = SERVICES[name]
    deploy = service["deploy"]

    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    # A virtual address forgets a connection that was silent for 15 minutes.
    assert deploy["endpoint_mode"] == "dnsrr"
    assert service["sysctls"] == {"net.ipv4.tcp_keepalive_time": "300"}
    assert {"cpus", "memory"} == set(deploy["resources"]["limits"])
    assert deploy["placement"]["constraints"]
    assert {"restart_policy", "update_config"} <= set(deploy)


@each_service
def test_an_update_does_not_run_two_tasks_on_one_volume_or_port(name: str) -> None:
    service = SERVICES[name]
    deploy = service["deploy"]
    own = [mount for mount in service.get("volumes", []) if mount.get("source") not in {None, *SHARED}]
    alone = "ports" in service or bool(own)

    if alone or name == "migrate":
        assert deploy["update_config"]["order"] == "stop-first"
    if deploy.get("replicas", 1) > 1:
        assert (deploy["update_config"]["order"], deploy["update_config"]["failure_action"]) == (
            "start-first",
            "rollback",
        )
    if own and name != "nginx":
        assert deploy.get("replicas", 1) == 1
        assert deploy["placement"]["constraints"] == ["node.labels.sluice.storage == true"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_to_their_volumes_only(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert "/tmp" in {mount["target"] for mount in SERVICES[name]["volumes"]}  # noqa: S108 - theirs, not ours


def test_who_loads_models_only_reads_them_and_the_api_keeps_them() -> None:
    mounted = {
        name: mount.get("read_only", False)
        for name, service in SERVICES.items()
        for mount in service.get("volumes", [])
        if mount.get("source") == "models"
    }

    assert mounted == {"api": False, "emb": True, "llm": True}
    for name in mounted:
        folder = environment_of(SERVICES[name])["SLUICE_MODELS_FOLDER"]
        assert folder in {mount["target"] for mount in SERVICES[name]["volumes"]}


def test_a_container_is_not_killed_before_its_process_has_had_its_time() -> None:
    broker = BrokerSettings(url="amqp://guest@localhost")
    serve = (ROOT / "services" / "api" / "main.py").read_text(encoding="utf-8")
    own = {
        "api": float(re.findall(r"timeout_graceful_shutdown=(\d+)", serve)[0]),
        "worker": float(celery_app(broker).conf.worker_soft_shutdown_timeout),
        "emb": emb._DRAIN_SECONDS + emb._CLOSE_SECONDS + EmbServiceSettings.model_fields["stuck_seconds"].default,
        "llm": llm._DRAIN_SECONDS + llm._CLOSE_SECONDS + LlmServiceSettings.model_fields["stuck_seconds"].default,
    }

    for name, needed in own.items():
        assert seconds(SERVICES[name]["stop_grace_period"]) > needed + 5, name
    for name in set(SERVICES) - {"migrate"}:
        assert seconds(SERVICES[name]["stop_grace_period"]) >= 30, name


def test_only_nginx_is_open_to_others() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    assert list(TLS["services"]) == ["nginx"]
    for port in SERVICES["nginx"]["ports"] + TLS["services"]["nginx"]["ports"]:
        # Through the ingress mesh nginx would see the mesh in the place of its clients.
        assert port["mode"] == "host"
        # A number, or a variable that Docker makes one of; "80" in quotes is refused.
        assert isinstance(port["published"], int) or port["published"].startswith("${")


def test_only_nginx_has_a_way_to_the_outside() -> None:
    assert {name for name, network in STACK["networks"].items() if network.get("internal")} == {"app", "data"}
    assert [name for name, service in SERVICES.items() if "edge" in service["networks"]] == ["nginx"]
    assert "data" not in SERVICES["nginx"]["networks"]
    for model in ("emb", "llm"):
        assert SERVICES[model]["networks"] == ["app"]


@each_service
def test_a_service_gets_the_secrets_that_it_names_and_no_other(name: str) -> None:
    assert set(SERVICES[name].get("secrets", [])) == secrets_named(SERVICES[name])


@pytest.mark.parametrize("file", [STACK, COMPOSE], ids=["stack.yml", "docker-compose.yml"])
def test_no_secret_stands_in_a_variable(file: dict[str, Any]) -> None:
    for name, service in file["services"].items():
        for variable, value in service.get("environment", {}).items():
            plain = with_defaults(value)
            if SECRET_WORDS.search(variable) and not plain.isdecimal():
                assert variable.endswith("_FILE"), (name, variable)
                assert plain.startswith("/run/secrets/"), (name, variable)
            assert not re.search(r"://[^/]*:[^/]*@", plain), (name, variable)


def test_the_deploy_tool_knows_every_secret_and_config() -> None:
    assert set(versions.SECRETS) == set(STACK["secrets"])
    assert set(versions.TLS_SECRETS) == set(TLS["secrets"])
    assert {name: str(path) for name, path in versions.CONFIGS.items()} == {
        name: config["file"] for name, config in STACK["configs"].items()
    }
    assert set(versions.SECRETS) <= set(NAMES)


@pytest.mark.parametrize(
    ("name", "definition"),
    [
        (name, definition)
        for file in (STACK, TLS)
        for kind in ("secrets", "configs")
        for name, definition in file.get(kind, {}).items()
    ],
)
def test_new_content_gets_a_new_name(name: str, definition: dict[str, str]) -> None:
    assert definition["name"] == f"${{SLUICE_STACK:-sluice}}_{name}_${{SHA_{name.upper()}:-1}}"
    if name not in versions.CONFIGS:
        assert definition["file"] == f"${{SLUICE_SECRETS:-./secrets}}/{name}"


@each_of_ours
def test_the_table_of_what_a_service_reads_is_what_its_code_reads(name: str) -> None:
    code = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in READ_IN[name])

    assert set(re.findall(r"(\w+Settings)\.from_environment\(\)", code)) == {group.__name__ for group in READS[name]}


@each_of_ours
def test_a_service_gets_every_setting_that_it_cannot_do_without(name: str) -> None:
    target = {"migrate": "api", "worker": "workers", "dispatcher": "workers"}.get(name, name)
    given = set(environment_of(SERVICES[name])) | set(image_environment(target))
    required = {
        variable_of(group, field)
        for group in READS[name]
        for field, info in group.model_fields.items()
        if info.is_required()
    }

    assert required | {variable for variable, readers in NEEDS_BESIDES.items() if name in readers} <= given


@each_of_ours
def test_a_service_gets_no_setting_that_it_does_not_read(name: str) -> None:
    read = {variable_of(group, field) for group in READS[name] for field in group.model_fields}

    assert {variable for variable in environment_of(SERVICES[name]) if variable.startswith("SLUICE_")} <= read


@pytest.mark.parametrize("file", [STACK, COMPOSE], ids=["stack.yml", "docker-compose.yml"])
def test_every_image_has_a_version(file: dict[str, Any]) -> None:
    for name, service in with_defaults(file["services"]).items():
        _, colon, tag = service["image"].rpartition(":")

        assert colon, name
        assert re.search(r"\d", tag), name


def test_of_every_volume_it_is_documented_what_its_loss_means() -> None:
    section = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split("### Volumes\n")[1].split("\n#")[0]
    kinds = dict(re.findall(r"^\| `([\w-]+)`[^|]*\|[^|]*\| (.+) \|$", section, flags=re.MULTILINE))

    assert set(STACK["volumes"]) <= set(kinds)
    assert set(COMPOSE["volumes"]) == set(kinds) | SCRATCH
    for name, kind in kinds.items():
        assert kind.startswith(("back up", "rebuildable from", "ephemeral")), name


def _docker(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "SHA_"))}
    return subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def stack_config() -> list[str]:
    """The command that reads a stack file as Swarm does. It needs no engine."""
    if shutil.which("docker") is None or "docker stack config" not in _docker("stack", "config", "--help").stdout:
        pytest.skip("no docker command with `stack config` is installed")
    return ["stack", "config", "--compose-file", "stack.yml"]


@pytest.mark.parametrize("overlay", ["", *OVERLAYS])
def test_docker_reads_the_stack(stack_config: list[str], overlay: str) -> None:
    overlays = ["--compose-file", overlay] if overlay else []

    done = _docker(*stack_config, *overlays, **NEEDED)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("SLUICE_PUBLIC_URL", "set it to the URL that clients use"),
        ("SLUICE_REGISTRY", "set it to where your images are"),
    ],
)
def test_a_deploy_without_what_only_the_operator_knows_is_refused_with_a_sentence(
    stack_config: list[str], name: str, sentence: str
) -> None:
    done = _docker(*stack_config, **{each: value for each, value in NEEDED.items() if each != name})

    assert done.returncode != 0
    assert sentence in done.stderr
