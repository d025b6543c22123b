"""`sluice smoke`: passes on a platform that works, names what does not, and cleans up whatever happens."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from infra.embedded.platform import Platform
from services.cli.exit_codes import Exit
from services.cli.smoke.suite import CHECKS
from sluice.identity.roles import Role
from tests.e2e.api import Api
from tests.e2e.running import HOME, PASSWORD, Join, Member

NAMES: Final = [*(check.name for check in CHECKS), "cleanup"]
Run = subprocess.CompletedProcess[str]
# Ctrl-C is ignored by what a shell without job control starts in the background, the test run perhaps among it.
START: Final = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from services.cli.main import main; main()"
)


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")} | more


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", START, "smoke", *arguments]


def smoke(*arguments: str, stdin: str = f"{PASSWORD}\n", **variables: str) -> Run:
    """Run the suite to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def states(report: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in report["checks"]}


def the(report: dict[str, Any], name: str) -> dict[str, Any]:
    (check,) = [check for check in report["checks"] if check["name"] == name]
    return dict(check)


@pytest.fixture(scope="module")
def operator(join: Join) -> Member:
    """Somebody with the least role that can run the whole suite, in a tenant without anything else."""
    return join_as(join, Role.TENANT_ADMIN)


def join_as(join: Join, role: Role) -> Member:
    tenant = f"Smoke {uuid4().hex}"
    join(tenant, Role.ADMIN)
    return join(tenant, role)


def sources_with_documents(api: Api) -> list[str]:
    return [source["name"] for source in api.get("/api/sources")["data"] if source["documents"]]


# A platform that works.


def test_on_a_platform_that_works_every_check_passes_and_says_what_it_saw(api_url: str, operator: Member) -> None:
    done = smoke(api_url, "--email", operator.email, "--password-stdin", "--json")

    assert done.returncode == Exit.OK, done.stderr
    report = json.loads(done.stdout)
    assert states(report) == dict.fromkeys(NAMES, "passed")
    assert (report["url"], report["passed"]) == (api_url, True)
    assert report["version"] == the(report, "version")["seen"]["version"]
    assert all(check["milliseconds"] >= 0 and check["error"] is None for check in report["checks"])
    assert {"first_event_milliseconds", "first_word_milliseconds"} <= the(report, "chat")["seen"].keys()
    assert the(report, "chat")["seen"]["citations"] > 0
    assert the(report, "retry")["seen"]["state"] == "ready"


def test_nothing_is_left_but_what_the_report_says(api_url: str, operator: Member) -> None:
    before = operator.api.every_id("/api/sources")

    report = json.loads(smoke(api_url, "--email", operator.email, "--password-stdin", "--json").stdout)

    assert operator.api.get("/api/documents")["data"] == []
    said = {left["id"] for left in report["left_behind"]}
    assert operator.api.every_id("/api/sources") - before <= said
    assert operator.api.every_id("/api/conversations") >= said - operator.api.every_id("/api/sources")
    assert not any(left["failed"] for left in report["left_behind"])


def test_without_a_url_the_platform_of_the_folder_is_checked_and_people_read_a_line_for_each_check() -> None:
    done = smoke(SLUICE_HOME=str(HOME))

    assert done.returncode == Exit.OK, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert "first event milliseconds:" in done.stdout
    assert f"All {len(NAMES)} checks passed" in done.stderr


# Something that does not work.


def test_a_wrong_password_fails_the_login_and_nothing_that_needs_it_is_tried(
    api_url: str, operator: Member, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")

    done = smoke(api_url, "--email", operator.email, "--password-file", str(password), "--json")

    report = json.loads(done.stdout)
    assert done.returncode == Exit.NOT_SIGNED_IN
    assert states(report) == dict.fromkeys(NAMES, "skipped") | {
        "healthz": "passed", "version": "passed", "login": "failed", "cleanup": "passed",
    }  # fmt: skip
    assert "[wrong_credentials" in the(report, "login")["error"]
    assert the(report, "source")["error"] == "needs login"


def test_a_port_where_nobody_listens_has_the_status_for_it() -> None:
    done = smoke("http://127.0.0.1:9", "--password-stdin", "--json")

    report = json.loads(done.stdout)
    assert done.returncode == Exit.UNREACHABLE
    assert report["passed"] is False
    assert report["version"] is None
    assert states(report) == dict.fromkeys(NAMES, "skipped") | {"healthz": "failed", "cleanup": "passed"}


def test_an_account_that_may_not_cancel_fails_that_check_in_the_servers_words(api_url: str, join: Join) -> None:
    editor = join_as(join, Role.EDITOR)

    done = smoke(api_url, "--email", editor.email, "--password-stdin")

    assert done.returncode == Exit.FAILED
    assert f"1 of {len(NAMES)} checks failed: cancel." in done.stderr
    assert "[not_allowed" in done.stdout
    assert "look at: the role of the account" in done.stdout
    assert sources_with_documents(editor.api) == []


@pytest.mark.parametrize(
    ("part", "failed", "code"), [("emb", "ingest", "embedder_unavailable"), ("llm", "chat", "llm_unavailable")]
)
def test_the_check_that_needs_a_part_which_is_away_fails_and_says_why(
    platform: Platform, api_url: str, operator: Member, part: str, failed: str, code: str
) -> None:
    with platform.away(part):
        done = smoke(api_url, "--email", operator.email, "--password-stdin", "--json", "--timeout", "30")

    report = json.loads(done.stdout)
    assert done.returncode == Exit.FAILED
    assert [check["name"] for check in report["checks"] if check["state"] == "failed"] == [failed]
    assert f"[{code}" in the(report, failed)["error"]
    assert states(report)["cleanup"] == "passed"
    assert sources_with_documents(operator.api) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_suite_that_is_stopped_cleans_up_before_it_ends(
    api_url: str, operator: Member, number: signal.Signals
) -> None:
    with subprocess.Popen(
        command(api_url, "--email", operator.email, "--password-stdin"),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(f"{PASSWORD}\n")
        running.stdin.flush()
        seen = [next(running.stdout) for _ in range(NAMES.index("upload") + 1)]
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=100)

    assert "upload" in seen[-1]
    assert running.returncode == 128 + number, stderr
    assert "cleanup" in stdout.splitlines()[-1]
    assert sources_with_documents(operator.api) == []
    assert "Traceback" not in stderr


# How it is called.


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("http://127.0.0.1:9",), Exit.USAGE, "--password-file"),
        (("http://127.0.0.1:9", "--password-file", "/nowhere"), Exit.USAGE, "/nowhere: No such file"),
        (("http://127.0.0.1:9", "--password-file", "x", "--password-stdin"), Exit.USAGE, "not both"),
        (("127.0.0.1:9", "--password-stdin"), Exit.USAGE, "is no URL"),
        (("https://127.0.0.1:9", "--password-stdin", "--ca", __file__), Exit.USAGE, "holds no certificates"),
        ((), Exit.NOT_CONFIGURED, "no platform in this folder"),
    ],
)
def test_wrong_usage_is_a_sentence(arguments: tuple[str, ...], status: Exit, sentence: str, tmp_path: Path) -> None:
    done = smoke(*arguments, SLUICE_HOME=str(tmp_path))

    assert (done.returncode, done.stdout) == (status, "")
    assert sentence in done.stderr


class ComingUp(BaseHTTPRequestHandler):
    """A proxy whose platform does not answer the first two times, and never is Sluice."""

    asked = 0

    def do_GET(self) -> None:
        ComingUp.asked += 1
        self.send_response(503 if ComingUp.asked <= 2 else 200)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(trust: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port on which `ComingUp` answers."""
    ComingUp.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), ComingUp) as server:
        if trust:
            server.socket = trust.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("wait", "failed", "sentence", "asked"),
    [("0", "healthz", "503", 1), ("60", "version", "Is this the URL of Sluice?", 4)],
)
def test_a_platform_that_is_coming_up_is_waited_for_when_that_was_asked_for(
    wait: str, failed: str, sentence: str, asked: int
) -> None:
    with served() as port:
        done = smoke(f"http://127.0.0.1:{port}", "--password-stdin", "--json", "--wait", wait)

    report = json.loads(done.stdout)
    assert done.returncode == Exit.SERVER_ERROR
    assert [check["name"] for check in report["checks"] if check["state"] == "failed"] == [failed]
    assert sentence in the(report, failed)["error"]
    assert ComingUp.asked == asked


@pytest.fixture
def own_certificate(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server with a certificate of its own needs, and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sluice.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    with_key = tmp_path / "with_key.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with_key.write_bytes(file.read_bytes() + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(with_key)
    return server, file


def test_a_certificate_of_ones_own_is_trusted_when_it_is_named_and_any_when_asked_to(
    own_certificate: tuple[ssl.SSLContext, Path],
) -> None:
    server, file = own_certificate
    with served(server) as port:
        url = f"https://127.0.0.1:{port}"
        stranger, named, any_at_all = (
            states(json.loads(smoke(url, "--password-stdin", "--json", *options).stdout))
            for options in ((), ("--ca", str(file), "--wait", "30"), ("--insecure",))
        )

    assert (stranger["healthz"], named["healthz"], any_at_all["healthz"]) == ("failed", "passed", "passed")
