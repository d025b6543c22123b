"""The switch for TLS, with a certificate of the test's own."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.integration.nginx_edge import Edge, free_port, running_app, running_edge

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """Files for the server, and what makes a client trust them."""

    certificate: Path
    key: Path

    def trusted(self) -> ssl.SSLContext:
        """A client that trusts this certificate alone."""
        return ssl.create_default_context(cafile=str(self.certificate))


Serve = Callable[..., tuple[str, AbstractContextManager[Edge]]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sluice.test")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(made.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with running_app() as running:
        yield running


@pytest.fixture
def serve(certificate: Certificate, api: str, tmp_path: Path) -> Serve:
    """An edge with TLS, and its HTTPS address."""

    def start(**settings: object) -> tuple[str, AbstractContextManager[Edge]]:
        port = free_port()
        running = running_edge(
            tmp_path / "edge",
            api=api,
            https_port=port,
            tls="files",
            tls_certificate=certificate.certificate,
            tls_key=certificate.key,
            **settings,
        )
        return f"https://{HOST}:{port}", running

    return start


def handshake(url: str, context: ssl.SSLContext) -> tuple[str | None, str]:
    """The version and cipher that both sides agree on."""
    address = urlsplit(url)
    assert address.port is not None
    with ssl.create_connection((HOST, address.port)) as plain, context.wrap_socket(plain, server_hostname=HOST) as tls:  # type: ignore[attr-defined] # re-exported from socket
        cipher = tls.cipher()
        return tls.version(), cipher[0] if cipher else ""


def test_https_serves_and_http_leads_there_with_the_same_path(serve: Serve, certificate: Certificate) -> None:
    url, running = serve()
    with running as edge:
        with httpx.Client(verify=certificate.trusted(), http2=True) as client:
            served = client.get(f"{url}/api/version")
        led = httpx.post(f"{edge.url}/api/a%2Fb?c=d")
        plain = httpx.get(f"{url.replace('https', 'http')}/api/version")
        healthy = httpx.get(f"{edge.url}/nginx-health")

        assert (served.status_code, served.http_version) == (200, "HTTP/2")
        assert ["x-forwarded-proto", "https"] in served.json()["headers"]
        assert "strict-transport-security" not in served.headers
        assert (led.status_code, led.headers["location"]) == (308, f"https://{HOST}/api/a%2Fb?c=d")
        assert (plain.status_code, plain.headers["location"]) == (308, f"{url}/api/version")
        assert healthy.text == "ok\n"
        assert edge.line(served.headers["x-request-id"])["tls"] in {"TLSv1.2", "TLSv1.3"}


def test_browsers_are_told_to_insist_on_https_only_when_that_was_asked_for_and_only_over_https(
    serve: Serve, certificate: Certificate
) -> None:
    url, running = serve(hsts="on")
    with running as edge:
        answer = httpx.get(f"{url}/nowhere", verify=certificate.trusted())

        assert answer.headers.get_list("strict-transport-security") == ["max-age=63072000"]
        assert "strict-transport-security" not in httpx.get(f"{edge.url}/nowhere").headers


def test_old_protocols_and_ciphers_are_refused_and_the_intermediate_profile_is_served(
    serve: Serve, certificate: Certificate
) -> None:
    url, running = serve()
    with running:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = certificate.trusted()
            context.minimum_version = context.maximum_version = version
            agreed, cipher = handshake(url, context)
            assert agreed == version.name.replace("_", ".")
            assert "GCM" in cipher or "CHACHA20" in cipher

        too_old = subprocess.run(
            ["openssl", "s_client", "-connect", urlsplit(url).netloc, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "alert protocol version" in too_old.stderr
        too_weak = certificate.trusted()
        too_weak.maximum_version = ssl.TLSVersion.TLSv1_2
        too_weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        with pytest.raises(ssl.SSLError, match="handshake failure"):
            handshake(url, too_weak)
