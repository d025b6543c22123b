"""Maintenance and read-only: flags in a folder, obeyed from the next request on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.nginx_edge import ROOT, Edge, problem, running_app, running_edge

SWITCH = ROOT / "infra" / "nginx" / "mode.sh"
SIGNED = "X-Amz-Signature=" + "0" * 64
Switch = Callable[[str], str]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("modes") / "edge"
    with running_app() as upstream, running_edge(folder, api=upstream, s3=upstream) as running:
        yield running


@pytest.fixture
def switch(edge: Edge) -> Iterator[Switch]:
    """`sluice-mode`; normal again afterwards."""

    def run(mode: str) -> str:
        done = subprocess.run(
            [SWITCH, mode],
            env={"PATH": "/usr/bin:/bin", "SLUICE_NGINX_MODE_DIR": str(edge.modes)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    yield run
    run("normal")


@pytest.fixture
def client(edge: Edge) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=edge.url, timeout=30) as client:
        yield client


def test_the_switch_says_what_it_did_and_what_holds(switch: Switch) -> None:
    assert switch("show") == "normal"
    for mode in ("readonly", "maintenance", "readonly", "normal"):
        assert (switch(mode), switch("show")) == (mode, mode)


@pytest.mark.parametrize(
    ("arguments", "folder", "status", "said"),
    [
        (["sideways"], "mode", 64, "usage"),
        (["readonly", "now"], "mode", 64, "usage"),
        (["readonly"], "missing", 1, "SLUICE_NGINX_MODE_DIR"),
    ],
)
def test_the_switch_says_what_it_cannot_do(
    tmp_path: Path, arguments: list[str], folder: str, status: int, said: str
) -> None:
    (tmp_path / "mode").mkdir()

    done = subprocess.run(
        [SWITCH, *arguments],
        env={"PATH": "/usr/bin:/bin", "SLUICE_NGINX_MODE_DIR": str(tmp_path / folder)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/version"),
        ("POST", "/api/search"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/docs"),
        ("GET", "/healthz"),
        ("GET", "/nowhere"),
        ("GET", f"/sluice/key?{SIGNED}"),
    ],
)
def test_in_maintenance_everything_waits_and_is_told_how_long(
    client: httpx.Client, switch: Switch, method: str, path: str
) -> None:
    switch("maintenance")

    answer = client.request(method, path)

    found = problem(answer)
    assert (answer.status_code, found["code"], found["retry_after"]) == (503, "maintenance", 60)
    assert ("error" in found) == path.startswith("/v1/")
    assert client.get("/nginx-health").text == "ok\n"


def test_in_maintenance_people_get_a_page_in_their_languages(client: httpx.Client, switch: Switch) -> None:
    switch("maintenance")
    browser = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}

    page = client.get("/docs", headers=browser)
    sent = client.post("/api/documents", headers=browser)

    assert (page.status_code, page.headers["retry-after"]) == (503, "60")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Back soon" in page.text
    assert "Скоро вернёмся" in page.text
    assert page.headers["x-frame-options"] == "DENY"
    assert "style-src 'unsafe-inline'" in page.headers["content-security-policy"]
    assert problem(sent)["code"] == "maintenance"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/documents"),
        ("HEAD", "/api/documents"),
        ("OPTIONS", "/api/documents"),
        ("POST", "/api/auth/login"),
        ("POST", "/api/search"),
        ("POST", "/v1/embeddings"),
        ("GET", f"/sluice/key?{SIGNED}"),
    ],
)
def test_when_it_is_read_only_reading_works(client: httpx.Client, switch: Switch, method: str, path: str) -> None:
    switch("readonly")

    assert client.request(method, path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/documents"),
        ("POST", "/api/searching"),
        ("POST", "/api/search/"),
        ("PUT", "/api/sources/1"),
        ("PATCH", "/api/sources/1"),
        ("DELETE", "/api/documents/1"),
        ("POST", "/api/uploads"),
        ("DELETE", "/v1/files/1"),
        ("PUT", f"/sluice/key?{SIGNED}"),
    ],
)
def test_when_it_is_read_only_changes_are_refused(client: httpx.Client, switch: Switch, method: str, path: str) -> None:
    switch("readonly")

    answer = client.request(method, path, content=b"x")

    found = problem(answer)
    assert (answer.status_code, found["code"], found["retry_after"]) == (503, "readonly", 60)


def test_back_to_normal_everything_works_again(client: httpx.Client, switch: Switch) -> None:
    switch("maintenance")
    assert client.post("/api/sources").status_code == 503

    switch("normal")

    assert client.post("/api/sources").status_code == 200
