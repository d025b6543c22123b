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
    "searchJobs": Role.TENANT_ADMIN,
    "inspectJob": Role.TENANT_ADMIN,
    "cancelJobs": Role.TENANT_ADMIN,
    "retryJobs": Role.TENANT_ADMIN,
    # Those of no tenant need Role.ADMIN; see services/api/all_tenants.py.
    "listDeadLetters": Role.TENANT_ADMIN,
    "listDeadLetterGroups": Role.TENANT_ADMIN,
    "getDeadLetter": Role.TENANT_ADMIN,
    "replayDeadLetter": Role.TENANT_ADMIN,
    "discardDeadLetter": Role.TENANT_ADMIN,
    "replayDeadLetters": Role.TENANT_ADMIN,
    "discardDeadLetters": Role.TENANT_ADMIN,
    "startDoctor": Role.TENANT_ADMIN,
    "reindexSource": Role.TENANT_ADMIN,
    # The platform's, whoever's documents they embed; what they have left behind is for each tenant to see.
    "listModels": Role.ADMIN,
    "verifyModel": Role.ADMIN,
    "activateModel": Role.ADMIN,
    "rollbackModel": Role.ADMIN,
    "deleteModel": Role.ADMIN,
    "listOutdated": Role.TENANT_ADMIN,
    "listAudit": Role.TENANT_ADMIN,
    "verifyAudit": Role.TENANT_ADMIN,
    "search": Role.VIEWER,
    "chat": Role.VIEWER,
    "cancelMessage": Role.VIEWER,
    "listConversations": Role.VIEWER,
    "getConversation": Role.VIEWER,
}
