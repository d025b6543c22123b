"""One version of the stack, and how it gets to the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from infra.swarm import versions
from infra.swarm.docker import DeployError, Docker

_TARGETS: Final = ("api", "workers", "workers-ocr", "emb", "llm")
_BUILD_SECONDS: Final = 3600
_TLS_OVERLAY: Final = Path("infra/swarm/tls.yml")


@dataclass(frozen=True)
class Release:
    """stack.yml with the variables of this environment."""

    root: Path
    stack: str
    secrets: Path
    overlays: Sequence[Path] = ()

    @property
    def registry(self) -> str:
        """Where our images come from. No default: a registry of the public could have images of that name."""
        return _needed("SLUICE_REGISTRY", "where your images are, such as registry.example.com/sluice")

    @property
    def public_url(self) -> str:
        """What clients use."""
        return _needed("SLUICE_PUBLIC_URL", "the URL that clients use, such as https://docs.example.com")

    @property
    def version(self) -> str:
        """The tag of our images."""
        return os.environ.get("SLUICE_VERSION", "0.1.0")

    @property
    def tls(self) -> bool:
        """Whether nginx has a certificate."""
        return os.environ.get("SLUICE_NGINX_TLS", "off") != "off"

    def image(self, name: str) -> str:
        """One of our images at this version."""
        return f"{self.registry}/{name}:{self.version}"

    def build(self, docker: Docker, options: Sequence[str]) -> Iterator[str]:
        """Build every image of this checkout; their names, each when it is there."""
        facts = {
            "VERSION": self.version,
            "COMMIT": commit_of(self.root),
            "CREATED": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        arguments = [each for name, value in facts.items() for each in ("--build-arg", f"{name}={value}")]
        for name, file in (
            *((each, "infra/images/Dockerfile") for each in _TARGETS),
            ("nginx", "infra/nginx/Dockerfile"),
        ):
            target = ["--target", name] if name != "nginx" else []
            status = docker.show(
                "build", "--file", str(self.root / file), *target, *arguments, *options, "--tag", self.image(name),
                str(self.root), timeout=_BUILD_SECONDS, environment={"DOCKER_BUILDKIT": "1"},
            )  # fmt: skip
            if status != 0:
                raise DeployError(f"docker build of {name} failed, as it says above.")
            yield self.image(name)

    def hashes(self) -> dict[str, str]:
        """The variables that name secrets and configs by their content."""
        return versions.content_hashes(self.root, self.secrets, tls=self.tls)

    def deploy(self, docker: Docker, *, resolve: bool) -> None:
        """Hand the stack to the engine, which returns before it has converged."""
        files = [self.root / "stack.yml", *([self.root / _TLS_OVERLAY] if self.tls else []), *self.overlays]
        status = docker.show(
            "stack", "deploy",
            *(argument for file in files for argument in ("--compose-file", str(file))),
            "--with-registry-auth", "--resolve-image", "always" if resolve else "never", self.stack,
            environment={"SLUICE_STACK": self.stack, "SLUICE_SECRETS": str(self.secrets), **self.hashes()},
        )  # fmt: skip
        if status != 0:
            raise DeployError("docker stack deploy refused the stack; its reason is above.")

    def smoke(self, docker: Docker) -> None:
        """Run the smoke suite against what clients see."""
        url = os.environ.get("SLUICE_SMOKE_URL") or self.public_url
        sys.stdout.flush()
        authority = os.environ.get("SLUICE_SMOKE_CA")
        trust = ["--volume", f"{Path(authority).absolute()}:/ca.pem:ro"] if authority else []
        status = docker.show(
            "run", "--rm", "--network", "host", "--volume", f"{self.secrets}:/secrets:ro", "--user", str(os.getuid()),
            *trust, self.image("api"), "sluice", "smoke", url, *(["--ca", "/ca.pem"] if authority else []),
            "--wait", "60", "--password-file", "/secrets/admin_password",
            "--email", os.environ.get("SLUICE_ADMIN_EMAIL", "admin@sluice.local"),
        )  # fmt: skip
        if status != 0:
            raise DeployError(f"The smoke suite failed against {url}; the check that failed is above.")

    def set_mode(self, docker: Docker, mode: str) -> None:
        """Set the flag that nginx looks at, on every edge node, without a restart: by a job that runs once on each."""
        job = f"{self.stack}_mode"
        with suppress(DeployError):
            docker.call("service", "rm", job)
        try:
            self._run_mode_job(docker, job, mode)
        finally:
            with suppress(DeployError):
                docker.call("service", "rm", job)

    def _run_mode_job(self, docker: Docker, job: str, mode: str) -> None:
        docker.call(
            "service", "create", "--quiet", "--name", job, "--mode", "global-job", "--restart-condition", "none",
            "--constraint", "node.labels.sluice.edge==true", "--no-healthcheck",
            "--mount", f"type=volume,source={self.stack}_nginx-mode,target=/var/lib/sluice/mode",
            "--entrypoint", "sluice-mode", self.image("nginx"), mode,
        )  # fmt: skip


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, as far as git is there to tell."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


def _needed(variable: str, what: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise DeployError(f"{variable} is not set: {what}. Set it in sluice.env or in the shell.")
    return value
