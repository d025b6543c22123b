"""Every code that a problem document or a failed job can have, and what to do about it.

`/docs/problems` shows this table, `docs/api.md` repeats it for those who read the repository; a test compares them.
"""

from __future__ import annotations

from html import escape
from typing import Final

PROBLEMS: Final[dict[str, str]] = {
    "action_not_allowed": "The job's state does not accept this; `allowed_actions` says what it accepts.",
    "alias_not_found": "No such alias of a model.",
    "broker_unavailable": "RabbitMQ does not answer. Work waits and goes on by itself.",
    "cache_unavailable": "Redis does not answer. Try again.",
    "completion_refused": "The language model refused the request for what it is; shorten the question.",
    "confirmation_mismatch": "Another number matches now: `matching`. Nothing was done; look again, then confirm.",
    "confirmation_needed": "Nothing was done. Send the same with `confirm`: the number in `matching`.",
    "conflict": "The thing is not in a state that allows this.",
    "conversation_not_found": "No such conversation, or somebody else's.",
    "damaged": "The file is cut short or damaged. Open it on your machine, save it again, upload that.",
    "database_unavailable": "PostgreSQL does not answer. Try again; nothing was changed.",
    "dead_letter_not_found": "No such dead letter, or another tenant's. One of no tenant needs `unattributed=true`.",
    "document_not_found": "No such document, or another tenant's.",
    "embedder_unavailable": "EMB does not answer or is busy. Work waits; search goes on by words alone.",
    "embedding_refused": "EMB refused a text for what it is.",
    "empty_file": "The file has 0 bytes.",
    "encrypted": "The file needs a password. Save it without one and upload that.",
    "erase_pending": "Nobody sees the document any more, but not all of it is gone: ask again in a minute.",
    "file_missing": "The request has no form field `file`.",
    "filter_empty": "The filter would fit everything. Name at least one member.",
    "forbidden": "This is not allowed.",
    "idempotency_key_reused": "This Idempotency-Key named another request. Use a new one for each request.",
    "internal_error": "Something that nobody foresaw. The log has it under the request's or job's id.",
    "invalid": "The request makes no sense as it stands; `errors` says where.",
    "invalid_cursor": "The cursor is not one that a page before gave out.",
    "invalid_external_id": "`external_id` is too long.",
    "invalid_name": "This cannot be the name or version of a model; `detail` says what can.",
    "invalid_tags": "Too many tags, or one that is too long.",
    "job_not_found": "No such job, or another tenant's.",
    "letter_resolved": "The dead letter was dealt with already, in the other way; `resolution` says how.",
    "llm_unavailable": "LLM does not answer or is busy. The question is kept; ask again.",
    "maintenance": "The platform is being maintained. Try again after `retry_after` seconds.",
    "malformed": "The body is not JSON, or not a form, as the route wants it.",
    "manifest_unreadable": "The manifest of the models folder is broken; `detail` says where.",
    "message_refused": "No worker could read the message. Run one version of workers and dispatcher, then replay.",
    "method_not_allowed": "The path exists, this method does not.",
    "model_changed": "The files of the model are not those that were added. Add it again.",
    "model_files_missing": "The files of the model are gone. Add it again.",
    "models_folder_unusable": "The API has no models folder, or may not change it; `detail` says which and what to do.",
    "model_not_found": "No such model; `detail` names those that there are.",
    "no_text": "The file has no text to search in. A scan needs OCR (`SLUICE_INGEST_OCR`).",
    "not_allowed": "Your role may not do this; `needed_role` says which may.",
    "not_authenticated": "No access token: sign in.",
    "not_converted": "The folder holds no converted model.",
    "not_convertible": "The model is of a kind that is not converted. Run it by the backend `sentence_transformers`.",
    "not_enough_memory": "There is no memory for the model beside those that are loaded.",
    "not_found": "Nothing is at this path.",
    "not_replayable": "The dead letter belongs to no job that could be done again. Discard it.",
    "object_not_found": "The object store has lost the file; upload it again.",
    "object_store_unavailable": "The object store does not answer. Try again.",
    "original_damaged": "The stored original is not what was uploaded. Upload it again.",
    "quality_gate": "The converted model is worse than is accepted; `detail` has the figures.",
    "readonly": "The platform is read-only for now: searching and asking work. Try again after `retry_after` seconds.",
    "request_in_progress": "A request with this Idempotency-Key is being answered. Ask again in a moment.",
    "source_exists": "The tenant has a source of this name.",
    "source_missing": "The form field `source_id` is missing or no id.",
    "source_not_empty": "A source with documents is not deleted; `documents` says how many it has. Erase them first.",
    "source_not_found": "No such source, or another tenant's.",
    "step_unknown": "The worker has no code for this step. Run workers of one version, then retry.",
    "temporarily_unavailable": "A part of the platform does not answer. Try again after `retry_after` seconds.",
    "token_expired": "The access token has expired: sign in again.",
    "token_invalid": "The access token is not one of ours, or was changed: sign in again.",
    "too_complex": "Reading the file took too much memory or time, or it unpacks to far more than it should.",
    "too_few_texts": "The file has too few passages to calibrate on and judge by.",
    "too_large": "The upload is over the limit; `limit` and `actual` are in bytes.",
    "too_many_requests": "Wait `retry_after` seconds.",
    "unreadable": "The file cannot be turned into text.",
    "unsafe_path": "A model leads out of the models folder or through a link, and is not read.",
    "unsupported_type": "Files of this type are not read, or the content is not what the name says.",
    "upload_contended": "Others upload to the same document all the time. Try again in a moment.",
    "upload_mismatch": "What was put at the presigned URL is not what was announced. Begin again.",
    "upload_missing": "Nothing was put at the presigned URL yet.",
    "upload_not_found": "No such upload, or it was completed already.",
    "vector_index_unavailable": "Qdrant does not answer. Work waits; search goes on by PostgreSQL's full text.",
    "version_not_found": "No such version of a document, or the document was erased.",
    "worker_lost": "The worker died each time it ran this step. Look at its log, then retry.",
    "wrong_credentials": "The e-mail address or the password is wrong.",
}

# Codes that end a request or a step from inside and are never shown.
INTERNAL: Final = frozenset({"canceled", "error", "ownership_lost", "stopped"})


def as_html() -> str:
    """The table as a page that needs nothing from elsewhere."""
    rows = "".join(
        f'<dt id="{code}"><code>{code}</code></dt><dd>{escape(meaning)}</dd>' for code, meaning in PROBLEMS.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Sluice: problems</title>'
        "<style>body{font:16px/1.5 system-ui;max-width:48rem;margin:2rem auto;padding:0 1rem}"
        "dt{margin-top:1rem}dt:target{background:#ffd}dd{margin:0 0 0 1.5rem}</style>"
        f"<h1>What the codes of problems mean</h1><dl>{rows}</dl></html>"
    )
