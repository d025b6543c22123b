"""Who may do what: the one table that the API obeys, the documentation shows and the tests walk through."""

from __future__ import annotations

from typing import Final

from sluice.identity.roles import Role

# Operation id -> the least role that may call it; None: anybody, signed in or not.
PERMISSIONS: Final[dict[str, Role | None]] = {
    "login": None,
    "getVersion": None,
    "getHealth": None,
    "getReadiness": None,
    "getMetrics": None,
    "listSources": Role.VIEWER,
    "createSource": Role.EDITOR,
    "getSource": Role.VIEWER,
    "deleteSource": Role.EDITOR,
    "uploadDocument": Role.EDITOR,
    "listDocuments": Role.VIEWER,
    "getDocument": Role.VIEWER,
    "getOriginal": Role.VIEWER,
    "deleteDocument": Role.EDITOR,
    "createUpload": Role.EDITOR,
    "completeUpload": Role.EDITOR,
    "listJobs": Role.VIEWER,
    "getJob": Role.VIEWER,
    "watchJob": Role.VIEWER,
    "cancelJob": Role.TENANT_ADMIN,
    "retryJob": Role.TENANT_ADMIN,
    "search": Role.VIEWER,
    "chat": Role.VIEWER,
    "cancelMessage": Role.VIEWER,
    "listConversations": Role.VIEWER,
    "getConversation": Role.VIEWER,
}
