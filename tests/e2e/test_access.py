"""Who may do what: tokens, roles, and tenants that cannot see one another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from sqlalchemy import text

from services.api.permissions import PERMISSIONS
from sluice.identity.roles import Role
from tests.e2e.api import Api, Json
from tests.e2e.running import PASSWORD, Join, Member, Stores

# A body that every operation with one accepts as far as its shape goes; extra members are ignored.
BODY: Final = {
    "name": "Any",
    "email": "nobody@example.org",
    "password": "wrong",
    "question": "Anything?",
    "size": 1,
    "content_hash": "0" * 64,
}


def operations(anyone: httpx.Client) -> Iterator[tuple[str, str, str]]:
    """Method, path and id of every operation that the API publishes."""
    for path, item in anyone.get("/openapi.json").json()["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation["operationId"]


def call(client: httpx.Client, method: str, path: str, operation: str, **ids: str) -> httpx.Response:
    """A well-formed call of the operation, with these ids or new ones in its path and body."""
    for name in (
        "source_id",
        "document_id",
        "job_id",
        "upload_id",
        "message_id",
        "conversation_id",
        "letter_id",
        "model",
    ):
        path = path.replace(f"{{{name}}}", ids.get(name, str(uuid4())))
    source_id = ids.get("source_id", str(uuid4()))
    if operation == "uploadDocument":
        return client.post(path, data={"source_id": source_id}, files={"file": ("a.txt", b"Some words.")})
    body = {**BODY, "source_id": source_id, "source_ids": [source_id]} if method == "POST" else None
    return client.request(method, path, json=body)


@pytest.fixture
def hers(stranger: Member) -> dict[str, str]:
    """Ids of all that another tenant has."""
    api = stranger.api
    source = api.new_source()
    document = api.ingested(source, "secret.txt", f"The secret of another tenant is {uuid4().hex}.".encode())
    answer = api.ask(source, "What is the secret of another tenant?").the("message.start")
    failed = api.ended(source, "blank.txt", b" \n")
    (letter,) = api.get("/api/admin/dead-letters", job_id=failed["id"])["data"]
    return {
        "source_id": source,
        "document_id": document["id"],
        "job_id": document["job_id"],
        "upload_id": api.promised(source, "promised.txt", b"Promised words.")["id"],
        "conversation_id": answer["conversation_id"],
        "message_id": answer["message_id"],
        "letter_id": letter["id"],
    }


def test_every_operation_refuses_a_caller_who_did_not_sign_in_unless_it_is_for_anybody(anyone: httpx.Client) -> None:
    for method, path, operation in operations(anyone):
        answer = call(anyone, method, path, operation)

        refused = answer.status_code == 401 and answer.json()["code"] == "not_authenticated"
        assert refused == (PERMISSIONS[operation] is not None), operation
        assert not refused or answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.EDITOR])
def test_every_operation_is_refused_to_a_role_that_is_too_low_and_to_no_other(
    anyone: httpx.Client, join: Join, tenant_name: str, role: Role
) -> None:
    member = join(tenant_name, role)
    for method, path, operation in operations(anyone):
        needed = PERMISSIONS[operation]

        answer = call(member.api.http, method, path, operation)

        assert (answer.status_code == 403) == (needed is not None and not role.includes(needed)), operation


def test_a_viewer_may_not_upload_and_is_told_which_role_may(viewer: Member, source: str) -> None:
    answer = viewer.api.upload(source, "note.txt", b"A note.")

    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    assert answer.json()["needed_role"] == "editor"


def test_a_viewer_sees_and_finds_what_the_editor_uploaded(api: Api, viewer: Member, source: str) -> None:
    document = api.ingested(source, "shared.txt", b"The keys of the archive hang beside the door.")

    assert viewer.api.document(document["id"]) == document
    assert viewer.api.found(source, "Where are the keys?") == ["The keys of the archive hang beside the door."]


def test_every_operation_with_an_id_knows_nothing_of_another_tenant_s(
    anyone: httpx.Client, join: Join, tenant_name: str, hers: dict[str, str]
) -> None:
    mighty = join(tenant_name, Role.ADMIN).api.http
    with_an_id = [found for found in operations(anyone) if "{" in found[1]]
    assert len(with_an_id) >= 11
    for method, path, operation in with_an_id:
        answer = call(mighty, method, path, operation, **hers)
        unknown = call(mighty, method, path, operation)

        if operation == "cancelMessage":
            # A wish that reaches only the caller's own answers; it tells nobody which ids there are.
            assert (answer.status_code, answer.content) == (unknown.status_code, unknown.content) == (202, b"")
            continue
        assert (answer.status_code, unknown.status_code) == (404, 404), operation
        assert answer.json()["code"] == unknown.json()["code"], operation


def test_another_tenant_s_ids_in_bodies_and_parameters_are_not_found(editor: Member, hers: dict[str, str]) -> None:
    http, source = editor.api.http, hers["source_id"]
    mine = editor.api.new_source()
    answers = {
        "upload": editor.api.upload(source, "intruder.txt", b"Words that do not belong there."),
        "promise": http.post("/api/uploads", json={**BODY, "source_id": source}),
        "search": http.post("/api/search", json={"question": "secret", "source_ids": [source]}),
        "search in both": http.post("/api/search", json={"question": "secret", "source_ids": [mine, source]}),
        "chat": http.post("/api/chat", json={"question": "secret", "source_ids": [source]}),
        "conversation": http.post("/api/chat", json={"question": "?", "conversation_id": hers["conversation_id"]}),
        "documents": http.get("/api/documents", params={"source_id": source}),
    }

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(answers, 404)
    assert http.get("/api/jobs", params={"document_id": hers["document_id"]}).json()["data"] == []


def test_a_search_over_everything_finds_nothing_of_another_tenant(editor: Member, hers: dict[str, str]) -> None:
    found = editor.api.http.post("/api/search", json={"question": "The secret of another tenant", "limit": 50}).json()

    assert hers["source_id"] not in {passage["source_id"] for passage in found["passages"]}
    assert editor.api.ask_anywhere("What is the secret of another tenant?").text.find("secret of another tenant is") < 0


def test_lists_show_nothing_of_another_tenant(editor: Member, hers: dict[str, str]) -> None:
    listed = {
        "source_id": "/api/sources",
        "document_id": "/api/documents",
        "job_id": "/api/jobs",
        "conversation_id": "/api/conversations",
    }
    for name, path in listed.items():
        assert hers[name] not in editor.api.every_id(path)


def test_another_tenant_s_attempts_left_everything_in_its_place(
    editor: Member, stranger: Member, hers: dict[str, str]
) -> None:
    editor.api.http.delete(f"/api/documents/{hers['document_id']}")
    editor.api.http.post(f"/api/uploads/{hers['upload_id']}:complete")

    assert stranger.api.document(hers["document_id"])["state"] == "ready"
    assert stranger.api.http.post(f"/api/uploads/{hers['upload_id']}:complete").json()["code"] == "upload_missing"


def test_the_same_bytes_in_two_tenants_are_two_documents(editor: Member, stranger: Member) -> None:
    content = f"A text that two tenants have, {uuid4().hex}.".encode()

    mine = editor.api.ingested(editor.api.new_source(), "common.txt", content)
    its = stranger.api.ingested(stranger.api.new_source(), "common.txt", content)

    assert mine["id"] != its["id"]
    editor.api.http.delete(f"/api/documents/{mine['id']}").raise_for_status()
    assert stranger.api.document(its["id"])["searchable"]


def test_sign_in_needs_the_right_password_and_does_not_say_what_was_wrong(
    anyone: httpx.Client, join: Join, tenant_name: str, stores: Stores
) -> None:
    member = join(tenant_name, Role.VIEWER)
    with stores.unscoped() as session:
        query = text("SELECT email FROM users WHERE id = :id")
        email = str(session.execute(query, {"id": member.user_id}).scalar_one())

    def sign_in(email: str, password: str) -> httpx.Response:
        return anyone.post("/api/auth/login", json={"email": email, "password": password})

    wrong, unknown = sign_in(email, "wrong"), sign_in(f"not-{email}", PASSWORD)
    assert (wrong.status_code, wrong.json()["code"]) == (401, "wrong_credentials")
    assert wrong.json()["detail"] == unknown.json()["detail"]
    right = sign_in(f"  {email.upper()} ", PASSWORD)
    assert right.status_code == 200
    assert right.json()["role"] == "viewer"


def claims(member: Member, **changed: Any) -> Json:
    now = datetime.now(UTC)
    return {
        "iss": "sluice",
        "aud": "sluice-api",
        "sub": str(member.user_id),
        "tid": str(member.tenant_id),
        "role": "admin",
        "iat": now,
        "nbf": now,
        "exp": now + timedelta(minutes=5),
        **changed,
    }


@pytest.fixture(scope="session")
def signing_key(variables: dict[str, str]) -> Ed25519PrivateKey:
    """The API's own key: with it, a token is wrong only in what the test changes."""
    pem = Path(variables["SLUICE_AUTH_PRIVATE_KEY_FILE"]).read_bytes()
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def answer_to(api: Api, token: str) -> httpx.Response:
    return api.http.get("/api/sources", headers={"Authorization": f"Bearer {token}"})


def test_a_token_made_with_the_right_key_and_claims_is_accepted(editor: Member, signing_key: Ed25519PrivateKey) -> None:
    # Shows that the refusals below are not for another reason.
    token = jwt.encode(claims(editor), signing_key, "EdDSA", headers={"typ": "at+jwt"})

    assert answer_to(editor.api, token).status_code == 200


def test_an_expired_token_is_401_and_says_so(editor: Member, signing_key: Ed25519PrivateKey) -> None:
    past = datetime.now(UTC) - timedelta(minutes=20)
    token = jwt.encode(
        claims(editor, iat=past, nbf=past, exp=past + timedelta(minutes=15)),
        signing_key,
        "EdDSA",
        headers={"typ": "at+jwt"},
    )

    answer = answer_to(editor.api, token)

    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another-api"},
        {"iss": "somebody-else"},
        {"role": "emperor"},
        {"sub": "not-an-id"},
        {"tid": "' OR 1=1"},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_token_with_a_wrong_claim_is_401(
    editor: Member, signing_key: Ed25519PrivateKey, changed: dict[str, Any]
) -> None:
    token = jwt.encode(claims(editor, **changed), signing_key, "EdDSA", headers={"typ": "at+jwt"})

    answer = answer_to(editor.api, token)

    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")


def test_a_forged_token_is_401_however_it_was_made(editor: Member, signing_key: Ed25519PrivateKey) -> None:
    access = {"typ": "at+jwt"}
    public = signing_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    head, body, signature = editor.api.token.split(".")
    forged = {
        "of another key": jwt.encode(claims(editor), Ed25519PrivateKey.generate(), "EdDSA", headers=access),
        "unsigned": jwt.encode(claims(editor), "", "none", headers=access),
        "signed with the public key as a secret": jwt.encode(claims(editor), public, "HS256", headers=access),
        "of another type": jwt.encode(claims(editor), signing_key, "EdDSA", headers={"typ": "JWT"}),
        "without a type": jwt.encode(claims(editor), signing_key, "EdDSA", headers={"typ": None}),
        "without a signature": f"{head}.{body}.",
        "with another body": f"{head}.{jwt.encode(claims(editor), signing_key, 'EdDSA').split('.')[1]}.{signature}",
        "not a token": "nonsense",
    }

    answers = {how: answer_to(editor.api, token) for how, token in forged.items()}

    assert {how: answer.status_code for how, answer in answers.items()} == dict.fromkeys(forged, 401)
    assert {answer.json()["code"] for answer in answers.values()} == {"token_invalid"}


def test_a_token_for_a_tenant_that_does_not_exist_sees_nothing(editor: Member, signing_key: Ed25519PrivateKey) -> None:
    token = jwt.encode(claims(editor, tid=str(UUID(int=0))), signing_key, "EdDSA", headers={"typ": "at+jwt"})

    assert answer_to(editor.api, token).json()["data"] == []
