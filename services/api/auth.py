"""Who is calling: the bearer token of a request, checked against the table of permissions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from services.api.dependencies import ResourcesDep
from services.api.permissions import PERMISSIONS
from sluice.errors import NotAllowed, NotAuthenticated
from sluice.identity.tokens import Caller
from sluice.telemetry import bind

_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="The access token from `POST /api/auth/login`")


def caller(
    request: Request,
    it: ResourcesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The signed-in caller, who may do what this route does."""
    if credentials is None:
        raise NotAuthenticated(
            "Sign in first: send `Authorization: Bearer <token>` with a token from POST /api/auth/login."
        )
    who = it.signer.verify(credentials.credentials)
    route: APIRoute = request.scope["route"]
    needed = PERMISSIONS[str(route.operation_id)]
    if needed is not None and not who.role.includes(needed):
        raise NotAllowed(f"This needs the role {needed}; yours is {who.role}.", needed_role=needed.value)
    bind(tenant_id=who.tenant_id, user_id=who.user_id)
    return who


CallerDep = Annotated[Caller, Depends(caller)]
