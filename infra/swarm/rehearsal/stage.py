"""The deployed stack, as an operator and as a client reach it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from infra.swarm import convergence
from infra.swarm.docker import DeployError, Docker

STACK: Final = "rehearsal"
VERSION: Final = "rehearsal"
_DEPLOY_SECONDS: Final = 900


@dataclass
class Stage:
    """One stack on one engine."""

    docker: Docker
    root: Path
    home: Path
    url: str = field(default_factory=lambda: f"http://127.0.0.1:{free_port()}")

    @property
    def secrets(self) -> Path:
        """The folder with the passwords."""
        return self.home / "secrets"

    def deploy(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`infra/swarm/deploy` as an operator would call it, with what it printed."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")},
            # Debian's docker command, also where another one comes first.
            "PATH": f"/usr/bin:{os.environ['PATH']}",
            "DOCKER_HOST": self.docker.host,
            "SLUICE_SECRETS": str(self.secrets),
            "SLUICE_REGISTRY": "sluice",
            "SLUICE_VERSION": VERSION,
            "SLUICE_PUBLIC_URL": self.url,
            "SLUICE_HTTP_PORT": self.url.rpartition(":")[2],
            "SLUICE_POSTGRES_SHARED_BUFFERS": "128MB",
            # The load of these experiments comes from one address, and more of it than people make.
            "SLUICE_NGINX_REQUESTS_PER_SECOND": "1000",
            "SLUICE_NGINX_REQUESTS_BURST": "1000",
            **variables,
        }
        return subprocess.run(
            [sys.executable, str(self.root / "infra/swarm/deploy"), "--stack", STACK, *arguments],
            cwd=self.root, env=environment, capture_output=True, text=True, timeout=_DEPLOY_SECONDS, check=False,
        )  # fmt: skip

    def update(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Deploy stack.yml with the sizes of a small machine."""
        sizes = self.root / "infra/swarm/rehearsal/sizes.yml"
        return self.deploy("deploy", "--no-resolve", "--timeout", "300", "--overlay", str(sizes), **variables)

    def make_certificate(self) -> None:
        """Put a certificate for this machine, its own authority, where the operator's would be."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (self.secrets / "tls_certificate").write_bytes(certificate.public_bytes(Encoding.PEM))
        (self.secrets / "tls_key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def sign_in(self) -> str:
        """A fresh token of the first administrator."""
        password = (self.secrets / "admin_password").read_text().strip()
        answer = httpx.post(
            f"{self.url}/api/auth/login", json={"email": "admin@sluice.local", "password": password}, timeout=30
        )
        return str(answer.raise_for_status().json()["access_token"])

    def client(self) -> httpx.Client:
        """The API through nginx, as the first administrator."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.sign_in()}"}, timeout=60)

    def containers(self, service: str) -> list[str]:
        """The running containers of a service."""
        label = f"label=com.docker.swarm.service.name={STACK}_{service}"
        return self.docker.call("ps", "--quiet", "--filter", label).split()

    def sql(self, statement: str, database: str = "postgres") -> list[str]:
        """What PostgreSQL answers its superuser."""
        connect = f"psql -h 127.0.0.1 -U postgres -d {database}"
        command = f'PGPASSWORD="$(cat /run/secrets/postgres_password)" {connect} -Atc "{statement}"'
        return self.docker.call("exec", self.containers("postgres")[0], "sh", "-c", command).split()

    def services(self) -> dict[str, convergence.Service]:
        """The services of the stack by their short names."""
        found = convergence.services_of(self.docker, STACK)
        return {each.name.removeprefix(f"{STACK}_"): each for each in found}

    def wait_ready(self, client: httpx.Client, jobs: Iterable[str], seconds: float) -> dict[str, Any]:
        """The last state of each job, when all have ended or the time is over."""
        waiting, ended = set(jobs), {}
        deadline = time.monotonic() + seconds
        while waiting and time.monotonic() < deadline:
            for job in sorted(waiting):
                found = client.get(f"/api/jobs/{job}").raise_for_status().json()
                ended[job] = found
                if found["state"] in {"ready", "failed", "canceled"}:
                    waiting.discard(job)
            time.sleep(1)
        return ended


def expect(done: subprocess.CompletedProcess[str], status: int) -> str:
    """What the command printed, when it ended as it should; else `DeployError`."""
    printed = done.stdout + done.stderr
    if done.returncode != status:
        raise DeployError(f"infra/swarm/deploy ended with {done.returncode}, expected {status}:\n{printed[-4000:]}")
    return printed


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
