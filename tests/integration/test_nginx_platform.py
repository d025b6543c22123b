"""The edge before the real platform: a gigabyte, presigned URLs, real answers, and an API that restarts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx
import psutil
import pytest
from httpx_sse import connect_sse

from infra.embedded.platform import Platform
from infra.embedded.system_packages import PROGRAMS
from sluice.testing.service_process import ServiceProcess, running_service
from tests.e2e.api import Api
from tests.e2e.faults import frozen
from tests.e2e.running import MEGABYTE, ROOT, SETTINGS, Member
from tests.integration.nginx_edge import Edge, problem, running_edge, until

GIGABYTE: Final = 1024**3
FORM: Final = 64 * 1024
# What may come on top of what an idle API has, and all that nginx may have.
MOST_FOR_AN_UPLOAD: Final = 64_000_000
MOST_FOR_NGINX: Final = 50_000_000
LOGINS: Final = 3


@pytest.fixture(scope="module")
def roomy_api(variables: dict[str, str]) -> Iterator[ServiceProcess]:
    """An API of the platform's, with the limit that the product comes with, and a short one for signing in."""
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setenv("SLUICE_INGEST_MAX_UPLOAD_BYTES", str(GIGABYTE))
            patch.setenv("SLUICE_AUTH_LOGIN_LIMIT", f"{LOGINS}/minute")
            api = running.enter_context(running_service("api"))
        yield api


@pytest.fixture(scope="module")
def roomy(roomy_api: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge before it."""
    folder = tmp_path_factory.mktemp("roomy") / "edge"
    with running_edge(folder, api=roomy_api.url.removeprefix("http://")) as edge:
        yield edge


def peak_rss(pid: int) -> int:
    """The most memory that the process has ever had, by the kernel's own count."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def form_around(source_id: str, name: str) -> tuple[str, bytes, bytes]:
    """The content type of a form with one file, and what comes before and after the file's bytes."""
    boundary = secrets.token_hex(16)
    field = f'--{boundary}\r\nContent-Disposition: form-data; name="source_id"\r\n\r\n{source_id}\r\n'
    file = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    head = field + file
    return f"multipart/form-data; boundary={boundary}", head.encode(), f"\r\n--{boundary}--\r\n".encode()


def test_a_gigabyte_is_accepted_in_bounded_memory(
    platform: Platform, roomy: Edge, roomy_api: ServiceProcess, editor: Member, source: str
) -> None:
    content_type, head, tail = form_around(source, f"{uuid4().hex}.txt")
    line = f"The harbour master {uuid4().hex} counts the ships. ".encode()
    piece = (line * (MEGABYTE // len(line) + 1))[:MEGABYTE]

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(GIGABYTE // MEGABYTE):
            yield piece
        yield tail

    nginx = [roomy.process.pid, *(child.pid for child in psutil.Process(roomy.process.pid).children())]
    idle = psutil.Process(roomy_api.process.pid).memory_info().rss
    length = len(head) + GIGABYTE + len(tail)
    headers = {
        "Authorization": f"Bearer {editor.api.token}",
        "Content-Type": content_type,
        "Content-Length": str(length),
    }
    # Nobody begins to read it before it is erased again.
    with platform.away("worker"):
        accepted = httpx.post(f"{roomy.url}/api/documents", content=body(), headers=headers, timeout=240)
        assert accepted.status_code == HTTPStatus.ACCEPTED, accepted.text
        document = editor.api.document(accepted.json()["document_id"])
        erased = editor.api.http.delete(f"/api/documents/{document['id']}", timeout=120)

    assert erased.raise_for_status().json()["objects"] == 0
    assert peak_rss(roomy_api.process.pid) - idle < MOST_FOR_AN_UPLOAD
    assert sum(map(peak_rss, nginx)) < MOST_FOR_NGINX
    assert list((roomy.folder / "run" / "temp").glob("*/*")) == []


def test_an_upload_over_the_limit_is_refused_in_the_same_words_by_edge_and_api(api: Api, source: str) -> None:
    limit = int(SETTINGS["SLUICE_INGEST_MAX_UPLOAD_BYTES"])

    accepted = api.upload(source, "largest.txt", b"a" * limit)
    by_the_api = api.upload(source, "too large.txt", b"a" * (limit + 1))
    by_the_edge = api.upload(source, "much too large.txt", b"a" * (limit + FORM))

    assert accepted.status_code == HTTPStatus.ACCEPTED
    assert api.http.delete(f"/api/documents/{accepted.json()['document_id']}").is_success
    for refused in (by_the_api, by_the_edge):
        found = problem(refused)
        assert (refused.status_code, found["code"], found["limit"]) == (413, "too_large", limit)
    assert "actual" in by_the_edge.json()


def test_a_stranger_s_upload_is_refused_before_all_of_it_has_come(roomy: Edge, source: str) -> None:
    content_type, head, _ = form_around(source, "a.txt")

    def body() -> Iterator[bytes]:
        yield head
        for _ in range(64):
            yield bytes(MEGABYTE)

    refused = httpx.post(f"{roomy.url}/api/documents", content=body(), headers={"Content-Type": content_type})

    assert (refused.status_code, problem(refused)["code"]) == (401, "not_authenticated")


def test_the_api_knows_its_clients_by_their_addresses(roomy: Edge) -> None:
    """Its own limit for signing in counts the client's address, not the edge's."""
    attempt = {"email": f"{uuid4().hex}@example.org", "password": "wrong"}

    def statuses(address: str) -> list[int]:
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address), base_url=roomy.url) as client:
            return [client.post("/api/auth/login", json=attempt).status_code for _ in range(LOGINS + 1)]

    for address in ("127.0.0.7", "127.0.0.8"):
        assert statuses(address) == [401] * LOGINS + [429]


def test_the_first_events_of_an_answer_arrive_while_the_model_has_not_said_a_word(
    platform: Platform, api: Api, source: str
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships every night.")
    question = {"question": "Who counts the ships every night?", "source_ids": [source]}
    with frozen(platform, "llm"), connect_sse(api.http, "POST", "/api/chat", json=question) as stream:
        events = stream.iter_sse()
        names = [next(events).event for _ in range(3)]

    assert names == ["message.start", "retrieval.start", "retrieval.result"]


def test_presigned_urls_lead_through_the_edge(api: Api, source: str, api_url: str, platform: Platform) -> None:
    content = f"Presigned {uuid4().hex}".encode()
    promise = api.promised(source, "direct.txt", content)

    put = httpx.put(promise["url"], content=content, timeout=30)
    job = api.wait(api.http.post(promise["complete"]).raise_for_status().json()["job_id"])
    link = api.get(f"/api/documents/{job['document_id']}/original")["url"]
    got = httpx.get(link, timeout=30)

    assert promise["url"].startswith(f"{api_url}/sluice/")
    assert link.startswith(f"{api_url}/sluice/")
    assert (put.status_code, got.status_code, got.content) == (200, 200, content)
    assert "sandbox" in got.headers["content-security-policy"]
    signature = httpx.URL(link).params["X-Amz-Signature"]
    assert signature not in platform.log("nginx").read_text()


@pytest.mark.parametrize(
    "tampered",
    [{"X-Amz-Signature": "0" * 64}, {"X-Amz-Expires": "86400"}],
    ids=["another signature", "a longer time"],
)
def test_a_presigned_url_that_was_changed_opens_nothing(api: Api, source: str, tampered: dict[str, str]) -> None:
    promise = api.promised(source, "direct.txt", b"content")

    answer = httpx.put(httpx.URL(promise["url"]).copy_merge_params(tampered), content=b"content", timeout=30)

    assert answer.status_code == HTTPStatus.FORBIDDEN


def test_the_documentation_page_works_under_its_policy(anyone: httpx.Client) -> None:
    page = anyone.get("/docs")

    policy = page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    for needed in ("script-src 'self' 'unsafe-inline'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:"):
        assert needed in policy
    assert "style-src" in anyone.get("/docs/problems").headers["content-security-policy"]
    assert anyone.get("/docs/assets/swagger-ui-bundle.js").headers["content-type"].startswith("text/javascript")


def test_while_the_api_restarts_clients_are_told_to_come_back_and_then_served(
    platform: Platform, anyone: httpx.Client, api_url: str
) -> None:
    answers: list[httpx.Response] = []
    over = threading.Event()

    def poll() -> None:
        with httpx.Client(base_url=api_url, timeout=60) as client:
            while not over.is_set():
                answers.append(client.get("/api/version"))
                over.wait(0.02)

    nginx = platform.pids("nginx")
    pollers = [threading.Thread(target=poll) for _ in range(4)]
    for poller in pollers:
        poller.start()
    try:
        platform.restart("api")
        until(lambda: answers[-1].is_success)
    finally:
        over.set()
        for poller in pollers:
            poller.join()

    refused = [answer for answer in answers if not answer.is_success]
    assert refused
    assert {answer.status_code for answer in refused} <= {502, 503}
    assert {problem(answer)["code"] for answer in refused} == {"temporarily_unavailable"}
    assert all("retry-after" in answer.headers for answer in refused)
    assert platform.pids("nginx") == nginx
    assert anyone.get("/api/version").is_success


def test_where_nginx_is_not_installed_the_platform_is_reached_at_its_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "nginx-light", tmp_path / "missing")
    monkeypatch.setenv("SLUICE_URL", "https://elsewhere.example.org")
    without = Platform(tmp_path / "home", ROOT)

    variables = without.environment()

    assert variables["SLUICE_URL"] == f"http://127.0.0.1:{variables['SLUICE_API_PORT']}"
    assert "SLUICE_S3_PUBLIC_ENDPOINT" not in variables
    assert "nginx" not in {part.name for part in without.status()}


def test_nginx_is_a_part_like_any_other(platform: Platform, api_url: str, anyone: httpx.Client) -> None:
    status = {part.name: part for part in platform.status()}["nginx"]
    before = platform.pids("nginx")
    assert (status.state, status.address) == ("RUNNING", api_url)

    platform.kill("nginx")
    until(lambda: platform.pids("nginx")[:1] not in ([], before[:1]))
    platform.wait_ready("nginx")
    assert anyone.get("/api/version").is_success

    platform.restart("nginx")
    with suppress(httpx.TransportError):
        # The connection that was kept has ended with the nginx that it led to.
        anyone.get("/api/version")
    assert anyone.get("/api/version").is_success
