"""E-mail (RFC 5322): who wrote what to whom, the text itself, and the names of what was attached."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from typing import TYPE_CHECKING, Final

from services.workers.parsing.charset import detect_encoding
from services.workers.parsing.document import ParsedDocument, ParseOptions
from services.workers.parsing.html_page import page_blocks
from services.workers.parsing.plain import text_blocks
from sluice.documents.text import Block, BlockKind, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADERS: Final = ("From", "To", "Cc", "Date")


def parse(path: Path, options: ParseOptions) -> ParsedDocument:  # noqa: ARG001 - every parser has this signature
    """The message, its subject as heading; a message that it forwards follows as part of it."""
    with path.open("rb") as file:
        message = BytesParser(EmailMessage, policy=policy.default).parse(file)
    return ParsedDocument(_blocks(message), title=_header(message, "Subject") or None)


def _blocks(message: EmailMessage) -> Iterator[Block]:
    if subject := _header(message, "Subject"):
        yield Block(BlockKind.HEADING, subject, level=1)
    if facts := [f"{name}: {value}" for name in _HEADERS if (value := _header(message, name))]:
        yield Block(BlockKind.PARAGRAPH, "; ".join(facts))
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        yield from _text(body)
    yield from _attachments(message)


def _text(part: MIMEPart) -> Iterator[Block]:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return
    encoding = _encoding(part, content)
    if part.get_content_subtype() == "html":
        yield from page_blocks(content, encoding)[1]
    else:
        yield from text_blocks(content.decode(encoding, "replace").splitlines())


def _encoding(part: MIMEPart, content: bytes) -> str:
    """The declared character set if the content fits it, else the likeliest."""
    declared = part.get_content_charset("")
    try:
        content.decode(declared)
    except (LookupError, UnicodeDecodeError):
        return detect_encoding(content)
    return declared


def _attachments(message: EmailMessage) -> Iterator[Block]:
    for part in message.iter_attachments():
        forwarded = part.get_payload(0) if part.get_content_type() == "message/rfc822" else None
        if isinstance(forwarded, EmailMessage):
            yield from _blocks(forwarded)
        elif name := one_line(part.get_filename() or ""):
            yield Block(BlockKind.LIST_ITEM, f"Attachment: {name}")


def _header(message: EmailMessage, name: str) -> str:
    return one_line(str(message.get(name, "")))
