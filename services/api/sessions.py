"""The transaction of a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends

from services.api.auth import CallerDep
from services.api.dependencies import ResourcesDep
from sluice.db.session import TenantSession, tenant_session


def session(who: CallerDep, it: ResourcesDep) -> Iterator[TenantSession]:
    """One transaction of the caller's tenant, for the whole request."""
    with tenant_session(it.sessions, who.tenant_id) as scoped:
        yield scoped


# "function": committed before the response leaves, so that a failed commit is an error and not a lost 202.
SessionDep = Annotated[TenantSession, Depends(session, scope="function")]
