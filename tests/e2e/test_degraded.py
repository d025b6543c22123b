"""Parts that are away while people ask: what still works, works, and what does not says so."""

from __future__ import annotations

import httpx

from infra.embedded.platform import Platform
from sluice.identity.roles import Role
from tests.e2e.api import Api
from tests.e2e.running import Join


def test_without_the_vector_index_full_text_search_answers_and_says_so(
    platform: Platform, api: Api, source: str
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships every evening.")
    api.ingested(source, "корабли.txt", "Смотритель гавани считает корабли каждый вечер.".encode())
    api.ingested(source, "onions.txt", b"Simmer the onions until they are golden.")

    with platform.away("qdrant"):
        english = api.search(source, "Who is counting ships?")
        russian = api.search(source, "Кто считал корабль?")
        nothing = api.search(source, "zebra chromodynamics")
        answer = api.ask(source, "Who is counting ships?")

    assert english["degraded"] == russian["degraded"] == ["vector_index"]
    assert [passage["document_name"] for passage in english["passages"]] == ["ships.txt"]
    assert [passage["document_name"] for passage in russian["passages"]] == ["корабли.txt"]
    assert english["passages"][0]["scores"].keys() == {"full_text"}
    assert nothing["passages"] == []
    assert answer.the("retrieval.result")["degraded"] == ["vector_index"]
    assert "counts the ships" in answer.text
    assert api.search(source, "Who is counting ships?")["degraded"] == []


def test_without_the_vector_index_a_document_is_not_erased_half_but_when_it_is_asked_again(
    platform: Platform, api: Api, source: str
) -> None:
    document = api.ingested(source, "ships.txt", b"The harbour master counts the ships every morning.")

    with platform.away("qdrant"):
        refused = api.http.delete(f"/api/documents/{document['id']}")
        found = api.search(source, "harbour ships")["passages"]

    assert (refused.status_code, refused.json()["code"]) == (503, "vector_index_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert found == []
    receipt = api.http.delete(f"/api/documents/{document['id']}").json()
    assert (receipt["rows"], receipt["points"], receipt["objects"]) == (0, 0, 0)


def test_without_the_model_a_question_ends_in_an_error_and_is_kept(platform: Platform, api: Api, source: str) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships at noon.")

    with platform.away("llm"):
        answer = api.ask(source, "Who counts the ships at noon?")

    assert answer.names() == ["message.start", "retrieval.start", "retrieval.result", "error"]
    problem = answer.the("error")
    assert problem["status"] == 503
    assert {"type", "title", "detail", "code", "request_id"} <= problem.keys()
    question, reply = api.get(f"/api/conversations/{answer.the('message.start')['conversation_id']}")["messages"]
    assert question["text"] == "Who counts the ships at noon?"
    assert (reply["text"], reply["finish_reason"]) == ("", "error")
    again = api.ask(
        source, "Who counts the ships at noon?", conversation_id=answer.the("message.start")["conversation_id"]
    )
    assert "at noon" in again.text


def test_without_redis_people_sign_in_and_get_answers(
    platform: Platform, api: Api, source: str, join: Join, tenant_name: str
) -> None:
    api.ingested(source, "ships.txt", b"The harbour master counts the ships at dawn.")

    with platform.away("redis"):
        newcomer = join(tenant_name, Role.VIEWER)
        answer = newcomer.api.ask(source, "Who counts the ships at dawn?")

    assert answer.the("message.end")["finish_reason"] == "stop"


def test_without_the_database_the_api_says_so_and_lives(
    platform: Platform, api: Api, source: str, inside: httpx.Client
) -> None:
    with platform.away("postgres"):
        answer = api.http.get("/api/sources")
        ready, alive = inside.get("/readyz"), api.http.get("/healthz")

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert api.http.get(f"/api/sources/{source}").status_code == 200
