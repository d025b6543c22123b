"""The access log: one JSON object a request, and no secret in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import uuid4

import httpx
import pytest

from tests.integration.nginx_edge import Edge, free_port, running_app, running_edge


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("log") / "edge"
    with running_app() as api, running_edge(folder, api=api, s3=f"127.0.0.1:{free_port()}") as running:
        yield running


def test_a_line_says_what_was_asked_who_answered_and_how_long_it_took(edge: Edge) -> None:
    request_id = f"log-{uuid4().hex}"

    answer = httpx.post(f"{edge.url}/api/%D0%B6?q=1", headers={"X-Request-ID": request_id}, content=b"body")

    line = edge.line(request_id)
    assert datetime.fromisoformat(line.pop("ts")).tzinfo is not None
    assert 0 <= line.pop("request_time") < float("inf")
    assert float(line.pop("upstream_time")) >= 0
    assert line.pop("upstream").startswith("127.0.0.1:")
    assert line.pop("bytes") > len(answer.content)
    assert line == {
        "service": "nginx",
        "event": "request",
        "request_id": request_id,
        "method": "POST",
        "path": "/api/%D0%B6",
        "status": 200,
        "client": "127.0.0.1",
        "limit": "",
        "tls": "",
    }


def test_neither_log_has_a_query_a_token_or_a_cookie(edge: Edge) -> None:
    secret = uuid4().hex * 2
    headers = {"Authorization": f"Bearer {secret}", "Cookie": f"a={secret}", "Referer": f"http://x/?{secret}"}
    # The second fails at the upstream, and would be told to the error log with its whole request line.
    for path in (f"/api/version?token={secret}", f"/sluice/key?X-Amz-Signature={secret}", f"/sluice/x?{secret}"):
        answer = httpx.get(edge.url + path, headers=headers)
        edge.line(answer.headers["x-request-id"])

    assert secret not in (edge.folder / "access.log").read_text()
    assert secret not in edge.errors()


def test_a_store_that_is_away_is_named_so(edge: Edge) -> None:
    answer = httpx.get(f"{edge.url}/sluice/key?X-Amz-Signature={'0' * 64}")

    assert (answer.status_code, answer.json()["code"]) == (502, "object_store_unavailable")
    assert answer.headers["retry-after"] == "5"
