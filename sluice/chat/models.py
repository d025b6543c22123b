"""Tables of conversations."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from sluice.db.base import Base, Identified, TenantOwned, Timestamped


class Speaker(StrEnum):
    """Who said it."""

    USER = "user"
    ASSISTANT = "assistant"


class Conversation(Identified, TenantOwned, Timestamped, Base):
    """Questions of one user and their answers."""

    __tablename__ = "conversations"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(200))

    __table_args__ = (Index("ix_conversations_user_created", "user_id", "created_at", "id"),)


class Message(Identified, TenantOwned, Timestamped, Base):
    """A question, or an answer with how it came about."""

    __tablename__ = "messages"

    conversation_id: Mapped[UUID] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    speaker: Mapped[Speaker]
    text: Mapped[str]
    # Of an answer: why it ended, which model wrote it, and how long each part took.
    finish_reason: Mapped[str | None] = mapped_column(String(20))
    model: Mapped[str | None] = mapped_column(String(120))
    timings: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default="{}")


class Citation(Identified, TenantOwned, Base):
    """A sentence of an answer and the place in a document that bears it out."""

    __tablename__ = "citations"

    message_id: Mapped[UUID] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    # The [n] in the answer.
    number: Mapped[int]
    # Erasing the document erases what was quoted from it.
    document_id: Mapped[UUID] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), index=True)
    version_id: Mapped[UUID]
    chunk_id: Mapped[UUID]
    page: Mapped[int | None]
    boxes: Mapped[list[list[float]]] = mapped_column(JSONB, default=list, server_default="[]")
    quote: Mapped[str]

    __table_args__ = (UniqueConstraint("message_id", "ordinal"),)
