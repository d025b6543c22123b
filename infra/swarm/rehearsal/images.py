"""Every image of the stack: a base from Debian's packages, ours from their Dockerfiles, stand-ins for the rest."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from infra.swarm.docker import DeployError, Docker

SERVICES: Final = ("api", "workers", "emb", "llm")
# The names that stack.yml and the Dockerfiles have, so that the same files are built and deployed here.
PYTHON_BASE: Final = "python:3.11-slim-bookworm"
NGINX_BASE: Final = "nginx:1.30.4-trixie"
STANDINS: Final = {
    "postgres": "postgres:18.1-bookworm",
    "redis": "redis:8.2-bookworm",
    "rabbitmq": "rabbitmq:4.2",
    "s3": "versity/versitygw:v1.7.0",
    "qdrant": "qdrant/qdrant:v1.16.2-unprivileged",
    "nginx": NGINX_BASE,
}
_SUITE: Final = "bookworm"
_INCLUDED: Final = "ca-certificates,python3,python3-venv"
# What a slim image leaves out, as the official ones do.
_LEFT_OUT: Final = (
    "proc/*", "sys/*", "dev/*", "var/cache/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*",
    "usr/share/locale/*",
)  # fmt: skip
_PATH: Final = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUILD_SECONDS: Final = 1800


class Builder:
    """Builds images of this checkout on one engine."""

    def __init__(self, docker: Docker, root: Path, home: Path, secrets: Sequence[str]) -> None:
        self._docker = docker
        self._root = root
        self._home = home
        self._secrets = secrets

    def base(self) -> None:
        """Debian with Python, out of the machine's own package mirror."""
        folder, archive = self._home / "debian", self._home / "debian.tar"
        if not archive.exists():
            self._run("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", _SUITE, str(folder), _mirror())
            left_out = [f"--exclude=./{each}" for each in _LEFT_OUT]
            self._run("tar", "-C", str(folder), *left_out, "-cf", str(archive), ".")
            self._run("rm", "-r", "--one-file-system", str(folder))
        self._docker.call("import", "--change", _PATH, str(archive), PYTHON_BASE)

    def standins(self) -> None:
        """The servers that would come from a registry."""
        for target, tag in STANDINS.items():
            self._build("infra/swarm/rehearsal/standins/Dockerfile", tag, target=target)

    def ours(self, version: str, commit: str) -> None:
        """The five images of this project."""
        facts = {"VERSION": version, "COMMIT": commit}
        for target in SERVICES:
            self._build("infra/images/Dockerfile", f"sluice/{target}:{version}", target=target, arguments=facts)
        self._build("infra/nginx/Dockerfile", f"sluice/nginx:{version}", arguments=facts)

    def broken_api(self, version: str, tag: str) -> None:
        """An image of the API that ends as soon as it starts; the others under the same tag, unchanged."""
        for name in (*SERVICES[1:], "nginx"):
            self._docker.call("tag", f"sluice/{name}:{version}", f"sluice/{name}:{tag}")
        container = self._docker.call("create", f"sluice/api:{version}").strip()
        broken = 'CMD ["python", "-c", "raise SystemExit(1)"]'
        self._docker.call("commit", "--change", broken, container, f"sluice/api:{tag}")
        self._docker.call("rm", container)

    def megabytes(self, image: str) -> float:
        """The size of an image, its base included."""
        return float(self._docker.inspect("image", [image])[0]["Size"]) / 1e6

    def has_module(self, image: str, module: str) -> bool:
        """Whether Python in this image finds the module."""
        asked = f"import importlib.util as u; print(u.find_spec({module!r}) is not None)"
        return self._docker.call("run", "--rm", "--network", "none", image, "python", "-c", asked).strip() == "True"

    def user_of(self, image: str) -> str:
        """The user that the image runs as."""
        return str(self._docker.inspect("image", [image])[0]["Config"]["User"])

    def _build(
        self, dockerfile: str, tag: str, *, target: str | None = None, arguments: Mapping[str, str] | None = None
    ) -> None:
        given = [each for name, value in (arguments or {}).items() for each in ("--build-arg", f"{name}={value}")]
        self._docker.call(
            "build", "--progress", "plain", "--network", "host", "--file", str(self._root / dockerfile), "--tag", tag,
            *(["--target", target] if target else []), *given, *self._secrets, str(self._root),
            timeout=_BUILD_SECONDS,
        )  # fmt: skip

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DeployError(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:].strip()}")


def _mirror() -> str:
    """Where this machine gets its Debian packages."""
    asked = ["/usr/bin/apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)"]
    listed = subprocess.run([*asked, "Created-By: Packages"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        codename, component, uri = line.split(maxsplit=2)
        if (codename, component) == (_SUITE, "main"):
            return uri
    raise DeployError(f"apt knows no source of {_SUITE} main. Run apt-get update, on Debian 12.")
