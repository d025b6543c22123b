"""What every route has in common: problems, ids, pages, conditional requests, documentation."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.api.permissions import PERMISSIONS
from tests.e2e.api import Api

PROBLEM = "application/problem+json"


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, item in document["paths"].items() for method, found in item.items()]


@pytest.fixture
def openapi(anyone: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = anyone.get("/openapi.json").raise_for_status().json()
    return document


def test_a_route_that_does_not_exist_is_a_problem_document(api: Api) -> None:
    answer = api.http.get("/api/nowhere")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == PROBLEM
    assert {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"} <= answer.json().keys()
    assert answer.json()["code"] == "not_found"
    assert answer.json()["instance"] == "/api/nowhere"


def test_a_method_that_a_route_does_not_have_is_named(api: Api) -> None:
    answer = api.http.put("/api/sources", json={})

    assert answer.status_code == 405
    assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/api/sources", "/api/search", "/api/chat", "/api/uploads", "/api/auth/login"])
def test_malformed_json_is_400_and_json_of_a_wrong_shape_is_422(api: Api, path: str) -> None:
    headers = {"Content-Type": "application/json"}

    malformed = api.http.post(path, content=b'{"name": ', headers=headers)
    wrong = api.http.post(path, json={"nothing": "expected"})

    assert (malformed.status_code, malformed.json()["code"]) == (400, "malformed")
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid")
    assert wrong.json()["errors"][0].keys() == {"pointer", "code", "message"}
    assert {malformed.headers["content-type"], wrong.headers["content-type"]} == {PROBLEM}


def test_an_id_that_is_not_one_is_422(api: Api) -> None:
    answer = api.http.get("/api/documents/not-an-id")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_well_formed_request_id_is_echoed_and_stands_in_the_problem(api: Api) -> None:
    request_id = f"test-{uuid4().hex}"

    answer = api.http.get(f"/api/documents/{uuid4()}", headers={"X-Request-ID": request_id})

    assert answer.headers["x-request-id"] == request_id
    assert answer.json()["request_id"] == request_id


@pytest.mark.parametrize("offered", ["short", "with spaces in it", "x" * 65, "<script>alert(1)</script>"])
def test_a_request_id_that_is_not_well_formed_is_replaced(api: Api, offered: str) -> None:
    answer = api.http.get("/api/version", headers={"X-Request-ID": offered})

    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_resource_that_has_not_changed_is_304_and_a_changed_one_is_not(api: Api, source: str) -> None:
    first = api.http.get(f"/api/sources/{source}")

    unchanged = api.http.get(f"/api/sources/{source}", headers={"If-None-Match": first.headers["etag"]})
    api.ingested(source, "note.txt", b"A note that changes the number of documents.")
    changed = api.http.get(f"/api/sources/{source}", headers={"If-None-Match": first.headers["etag"]})

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == first.headers["etag"]
    assert (changed.status_code, changed.json()["documents"]) == (200, 1)
    assert changed.headers["etag"] != first.headers["etag"]


def test_the_pages_of_a_list_show_each_item_once_and_in_order(api: Api, source: str) -> None:
    uploaded = [api.accepted(source, f"{n}.txt", f"Document {n}.".encode())["document_id"] for n in range(5)]

    seen: list[str] = []
    cursor: str | None = None
    sizes = []
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = api.get("/api/documents", source_id=source, limit=2, **more)
        seen += [document["id"] for document in page["data"]]
        sizes.append(len(page["data"]))
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break

    assert seen == uploaded[::-1]
    assert sizes == [2, 2, 1]
    assert cursor is None


@pytest.mark.parametrize("path", ["/api/sources", "/api/documents", "/api/jobs", "/api/conversations"])
@pytest.mark.parametrize("cursor", ["nonsense", "%00", "bm90IGEgZGF0ZXxub3QgYW4gaWQ=", "ж"])
def test_a_cursor_that_this_api_did_not_give_out_is_422(api: Api, path: str, cursor: str) -> None:
    answer = api.http.get(path, params={"cursor": cursor})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize("limit", ["0", "101", "many"])
def test_a_page_size_out_of_bounds_is_422(api: Api, limit: str) -> None:
    assert api.http.get("/api/documents", params={"limit": limit}).status_code == 422


def test_a_second_source_of_the_same_name_is_409(api: Api) -> None:
    name = f"Handbooks {uuid4().hex}"

    first = api.http.post("/api/sources", json={"name": name})
    second = api.http.post("/api/sources", json={"name": name})

    assert first.status_code == 201
    assert first.headers["location"] == f"/api/sources/{first.json()['id']}"
    assert (second.status_code, second.json()["code"]) == (409, "source_exists")


def test_every_operation_of_the_published_document_has_a_unique_id_and_a_row_of_permissions(
    openapi: dict[str, Any],
) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(openapi)]

    assert [name for name, times in Counter(ids).items() if times > 1] == []
    assert set(ids) == set(PERMISSIONS)


def test_every_operation_documents_its_problems(openapi: dict[str, Any]) -> None:
    for path, method, operation in operations(openapi):
        assert {"401", "404", "422", "503"} <= operation["responses"].keys(), f"{method} {path}"


def test_the_documentation_page_and_all_that_it_loads_come_from_here(anyone: httpx.Client) -> None:
    page = anyone.get("/docs")

    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert page.status_code == 200
    assert loaded
    assert [address for address in loaded if not address.startswith("/") or address.startswith("//")] == []
    assert {anyone.get(address).status_code for address in loaded} == {200}


def test_version_health_readiness_and_metrics_need_no_sign_in(anyone: httpx.Client, inside: httpx.Client) -> None:
    assert anyone.get("/api/version").json()["api"] == "1"
    assert anyone.get("/healthz").json() == {"status": "ok"}
    assert inside.get("/readyz").json() == {"status": "ok"}
    metrics = inside.get("/metrics").text
    for name in ("http_requests_total", "http_request_duration_seconds", "sluice_sse_streams_active"):
        assert name in metrics


def test_requests_are_counted_by_route_template_and_not_by_id(inside: httpx.Client, api: Api) -> None:
    missing = str(uuid4())
    api.http.get(f"/api/documents/{missing}")

    metrics = inside.get("/metrics").text

    assert 'route="/api/documents/{document_id}",status="404"' in metrics
    assert missing not in metrics
