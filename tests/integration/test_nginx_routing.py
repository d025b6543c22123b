"""What the edge passes on, as it came, and what it answers itself."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from services.api.middleware import JSON_LIMIT
from services.api.problems import PROBLEMS
from sluice.telemetry import accepted_request_id
from tests.integration.nginx_edge import Edge, problem, running_app, running_edge

SIGNED = "X-Amz-Signature=" + "0" * 64


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """One nginx before an API and an object store that say back what they saw."""
    folder = tmp_path_factory.mktemp("routing") / "edge"
    with running_app() as upstream, running_edge(folder, api=upstream, s3=upstream, requests_burst=10_000) as running:
        yield running


@pytest.fixture
def client(edge: Edge) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=edge.url, timeout=30) as client:
        yield client


def seen_by_the_api(edge: Edge, target: str, headers: dict[str, str] | None = None, method: str = "GET") -> Any:
    """What reached the API of a request whose target no client library has tidied up."""
    with closing(http.client.HTTPConnection(urlsplit(edge.url).netloc, timeout=30)) as connection:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == HTTPStatus.OK, body
    return json.loads(body)


def raw(edge: Edge, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to bytes that need not be HTTP."""
    address = urlsplit(edge.url)
    with socket.create_connection((address.hostname, address.port or 0), timeout=30) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    "target",
    [
        "/api/version",
        "/api/documents/a%2Fb?x=%20&y=a+b",
        "/api//double//slashes",
        "/api/%D0%B6/%25",
        "/api/dots/./and/%2e",
        "/api/semicolon;v=1?",
        "/v1/models?limit=1",
        "/docs",
        "/docs/assets/swagger-ui.css",
        "/openapi.json",
        "/healthz",
    ],
)
def test_paths_and_queries_reach_the_api_as_they_were_sent(edge: Edge, target: str) -> None:
    assert seen_by_the_api(edge, target)["target"] == target.removesuffix("?")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/api",
        "/v1",
        "/sluice",
        "/metrics",
        "/readyz",
        "/docsx",
        "/healthz/",
        "/.problem",
        "/maintenance.html",
        "/api/../metrics",
        "/api/%2e%2e/metrics",
        "/api/..%2fmetrics",
        "//metrics",
        "/docs/../readyz",
    ],
)
def test_what_is_no_route_does_not_exist_and_never_reaches_the_api(edge: Edge, target: str) -> None:
    status, headers, body = raw(edge, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert json.loads(body)["code"] == "not_found"
    assert edge.line(headers["x-request-id"])["upstream"] == ""


def test_the_edge_answers_for_its_own_health_and_does_not_log_it(edge: Edge, client: httpx.Client) -> None:
    healthy = client.get("/nginx-health")
    later = client.get("/nowhere")

    assert healthy.text == "ok\n"
    assert edge.line(later.headers["x-request-id"])
    assert healthy.headers["x-request-id"] not in {line["request_id"] for line in edge.log()}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_is_passed_on(client: httpx.Client, method: str) -> None:
    answer = client.request(method, "/api/sources")

    assert answer.status_code == HTTPStatus.OK
    assert method == "HEAD" or answer.json()["method"] == method


@pytest.mark.parametrize(
    "offered",
    ["12345678", "a.b_c-D9", "x" * 64, "short", "x" * 65, "with space", "", "<script>", 'quote"quote', "ключ-ключ"],
)
def test_a_request_id_is_taken_by_the_rule_of_the_api_passed_on_and_echoed_once(
    client: httpx.Client, offered: str
) -> None:
    answer = client.get("/api/version", headers=[(b"X-Request-ID", offered.encode())])

    (echoed,) = answer.headers.get_list("x-request-id")
    (passed_on,) = [value for name, value in answer.json()["headers"] if name == "x-request-id"]
    assert echoed == passed_on
    if accepted_request_id(offered) == offered:
        assert echoed == offered
    else:
        assert re.fullmatch(r"[0-9a-f]{32}", echoed)


def test_what_a_client_claims_of_itself_does_not_reach_the_api(edge: Edge) -> None:
    claimed = {
        "X-Forwarded-For": "203.0.113.7",
        "X-Real-IP": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=203.0.113.7;proto=https",
    }

    headers = seen_by_the_api(edge, "/api/version", claimed)["headers"]

    request_id = dict(headers)["x-request-id"]
    host = urlsplit(edge.url).netloc
    assert [pair for pair in headers if "forward" in pair[0] or pair[0] in {"x-real-ip", "host"}] == [
        ["host", host],
        ["x-forwarded-for", "127.0.0.1"],
        ["x-real-ip", "127.0.0.1"],
        ["x-forwarded-proto", "http"],
        ["x-forwarded-host", host],
    ]
    assert edge.line(request_id)["client"] == "127.0.0.1"


def test_a_trusted_proxy_in_front_is_believed_and_nobody_behind_it(tmp_path: Path) -> None:
    claimed = {"X-Forwarded-For": "192.0.2.1, 203.0.113.7", "X-Forwarded-Proto": "https"}
    with (
        running_app() as api,
        running_edge(tmp_path / "trusting", api=api, trusted_proxies="127.0.0.0/8 10.0.0.0/8") as edge,
    ):
        headers = dict(seen_by_the_api(edge, "/api/version", claimed)["headers"])

        assert (headers["x-forwarded-for"], headers["x-real-ip"]) == ("203.0.113.7", "203.0.113.7")
        assert headers["x-forwarded-proto"] == "https"
        assert edge.line(headers["x-request-id"])["client"] == "203.0.113.7"


@pytest.mark.parametrize("path", ["/api/version", "/nowhere", "/nginx-health", "/docs", f"/sluice/key?{SIGNED}"])
def test_every_answer_has_each_security_header_once(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers

    for name, value in {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "server": "nginx",
    }.items():
        assert headers.get_list(name) == [value]
    (policy,) = headers.get_list("content-security-policy")
    assert "frame-ancestors 'none'" in policy
    assert len(headers.get_list("permissions-policy")) == 1
    assert "strict-transport-security" not in headers


def test_what_people_uploaded_runs_no_script(client: httpx.Client) -> None:
    assert "sandbox" in client.get(f"/sluice/key?{SIGNED}").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("target", "instance"),
    [
        (b"/nowhere?secret=1", "/nowhere"),
        (b"/a%22b%5C%0A%D0%B6", "/a%22b%5C%0A%D0%B6"),
        (b'/a"b', "/a"),
        (b"/a\\b", "/a"),
        (b"/a\xff\xfe", "/a"),
        (b"/<script>", "/"),
        (b"/$status;{}'", "/$status;"),
    ],
)
def test_a_path_is_repeated_in_a_problem_only_as_far_as_it_needs_no_escape(
    edge: Edge, target: bytes, instance: str
) -> None:
    status, headers, body = raw(edge, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    found = json.loads(body)
    assert (status, found["instance"], found["code"]) == (404, instance, "not_found")
    assert found["request_id"] == headers["x-request-id"]
    assert edge.line(found["request_id"])["path"] == target.partition(b"?")[0].partition(b"\xff")[0].decode()


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (b"GARBAGE", 400, "malformed"),
        (b"GET /api/x HTTP/1.1", 400, "malformed"),
        (b"GET /api/x HTTP/3.1\r\nHost: x", 505, "malformed"),
        (b"TRACE /api/x HTTP/1.1\r\nHost: x", 405, "method_not_allowed"),
        (b"GET /v1/x HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000, 400, "malformed"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x", 414, "malformed"),
        (b"POST /api/x HTTP/1.1\r\nHost: x\r\nContent-Length: many", 400, "malformed"),
        (b"POST /api/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: strange", 501, "malformed"),
    ],
)
def test_a_request_that_is_no_http_is_a_problem_as_well(
    edge: Edge, request_head: bytes, status: int, code: str
) -> None:
    answered, headers, body = raw(edge, request_head + b"\r\n\r\n")

    found = json.loads(body)
    assert (answered, found["status"], found["code"]) == (status, status, code)
    assert headers["content-type"] == "application/problem+json"
    assert found["title"] == HTTPStatus(status).phrase
    assert edge.line(headers["x-request-id"])["status"] == status
    assert "uninitialized" not in edge.errors()


@pytest.mark.parametrize("path", ["/api/search", "/v1/embeddings", "/api/documents/1", "/api/chat"])
def test_a_body_may_have_what_the_api_reads_and_not_a_byte_more(client: httpx.Client, path: str) -> None:
    body = bytes(JSON_LIMIT)

    if path != "/api/chat":
        passed = client.post(path, content=body).json()
        assert (passed["size"], passed["sha256"]) == (JSON_LIMIT, hashlib.sha256(body).hexdigest())
    refused = client.post(path, content=body + b"x")

    assert refused.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    found = problem(refused)
    assert (found["code"], found["limit"], found["actual"]) == ("too_large", JSON_LIMIT, JSON_LIMIT + 1)


def test_a_body_without_a_length_is_refused_when_it_becomes_too_long(client: httpx.Client) -> None:
    refused = client.post("/api/search", content=(bytes(1024) for _ in range(JSON_LIMIT // 1024 + 1)))

    found = problem(refused)
    assert (refused.status_code, found["code"], found["limit"]) == (413, "too_large", JSON_LIMIT)
    assert JSON_LIMIT < found["actual"] < 2 * JSON_LIMIT


def test_errors_of_the_openai_face_have_the_member_that_its_clients_read(client: httpx.Client) -> None:
    found = problem(client.post("/v1/embeddings", content=bytes(JSON_LIMIT + 1)))

    assert found["error"] == {
        "message": found["detail"],
        "type": "invalid_request_error",
        "code": "too_large",
        "param": None,
    }
    assert "error" not in problem(client.get("/nowhere"))


def test_an_answer_that_comes_before_the_upload_is_read_reaches_the_client(client: httpx.Client) -> None:
    answer = client.post("/api/refuse-at-once", content=bytes(JSON_LIMIT))

    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", ""),
        ("GET", "list-type=2"),
        ("GET", "X-Amz-Signature="),
        ("GET", "X-Amz-Signature=short"),
        ("GET", f"not{SIGNED}"),
        ("POST", SIGNED),
        ("DELETE", SIGNED),
        ("OPTIONS", SIGNED),
    ],
)
def test_the_object_store_opens_to_signed_queries_and_the_methods_of_presigned_urls_alone(
    client: httpx.Client, method: str, query: str
) -> None:
    answer = client.request(method, f"/sluice/tenant/key?{query}", headers={"Authorization": "AWS4-HMAC-SHA256 x"})

    assert (answer.status_code, problem(answer)["code"]) == (403, "forbidden")


def test_a_presigned_request_reaches_the_store_with_its_host_and_without_other_credentials(edge: Edge) -> None:
    target = f"/sluice/tenant%2Fkey/%D0%B6?X-Amz-Date=1&{SIGNED}&x-id=GetObject"

    seen = seen_by_the_api(edge, target, {"Authorization": "Bearer token", "Cookie": "session=1", "Range": "bytes=0-9"})

    names = {name for name, _ in seen["headers"]}
    assert seen["target"] == target
    assert ["host", urlsplit(edge.url).netloc] in seen["headers"]
    assert "range" in names
    assert names.isdisjoint({"authorization", "cookie"})


def test_every_code_of_the_edge_is_documented() -> None:
    templates = Path(__file__).parents[2] / "infra" / "nginx" / "templates" / "problems.conf.template"
    table = templates.read_text().split("$problem_code {")[1].split("}")[0]
    upstream = templates.read_text().split("$upstream_problem {")[1].split("}\n")[0]
    codes = set(re.findall(r" ([a-z_]+);", table + upstream))

    assert {"maintenance", "readonly", "too_many_requests", "temporarily_unavailable"} <= codes
    assert codes <= set(PROBLEMS)
