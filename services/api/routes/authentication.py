"""`/api/auth`: from e-mail address and password to an access token."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from services.api.dependencies import ResourcesDep
from services.api.text import CleanText
from sluice.identity.roles import Role
from sluice.identity.sign_in import sign_in

router = APIRouter(prefix="/api/auth", tags=["Sign-in"])


class Credentials(BaseModel):
    """Who wants to sign in."""

    email: CleanText = Field(max_length=320, examples=["admin@sluice.local"])
    password: CleanText = Field(max_length=1024, examples=["correct horse battery staple"])


class AccessToken(BaseModel):
    """Proof of who is calling, to be sent as `Authorization: Bearer <access_token>`."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme
    expires_in: int = Field(description="Seconds", examples=[900])
    user_id: UUID
    tenant_id: UUID
    role: Role


@router.post("/login", operation_id="login", summary="Sign in")
def login(credentials: Credentials, request: Request, it: ResourcesDep) -> AccessToken:
    """Exchange an e-mail address and a password for an access token."""
    it.login_limit.check(credentials.email, request.client.host if request.client else "unknown")
    caller = sign_in(it.unscoped, credentials.email, credentials.password)
    return AccessToken(
        access_token=it.signer.sign(caller),
        expires_in=int(it.signer.lifetime.total_seconds()),
        user_id=caller.user_id,
        tenant_id=caller.tenant_id,
        role=caller.role,
    )
