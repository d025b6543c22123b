"""Conversations, as they are saved and read back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from sluice.chat.citations import Cited
from sluice.chat.models import Citation, Conversation, Message
from sluice.documents.models import Document
from sluice.errors import NotFound

_TITLE = 80


class ConversationNotFound(NotFound):
    """No such conversation."""

    code = "conversation_not_found"


def open_conversation(session: Session, user_id: UUID, conversation_id: UUID | None, question: str) -> Conversation:
    """The user's conversation with this id, or a new one that bears the question as its title."""
    if conversation_id is not None:
        return get(session, user_id, conversation_id)
    title = question if len(question) <= _TITLE else f"{question[: _TITLE - 1]}…"
    conversation = Conversation(user_id=user_id, title=title)
    session.add(conversation)
    session.flush()
    return conversation


def get(session: Session, user_id: UUID, conversation_id: UUID) -> Conversation:
    """The user's own conversation; `ConversationNotFound` also for somebody else's."""
    conversation = session.scalars(
        select(Conversation).where(Conversation.id == conversation_id, Conversation.user_id == user_id)
    ).one_or_none()
    if conversation is None:
        raise ConversationNotFound(f"There is no conversation {conversation_id}.")
    return conversation


def page(
    session: Session, user_id: UUID, *, before: tuple[datetime, UUID] | None, limit: int
) -> Sequence[Conversation]:
    """Up to `limit` of the user's conversations, newest first."""
    query = (
        select(Conversation)
        .where(Conversation.user_id == user_id)
        .order_by(Conversation.created_at.desc(), Conversation.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(Conversation.created_at, Conversation.id) < before)
    return session.scalars(query).all()


def messages(session: Session, conversation_id: UUID) -> Sequence[Message]:
    """What was said, in order."""
    return session.scalars(select(Message).where(Message.conversation_id == conversation_id).order_by(Message.id)).all()


def citations(session: Session, message_ids: Sequence[UUID]) -> Sequence[Citation]:
    """What these answers cite, in order."""
    return session.scalars(
        select(Citation).where(Citation.message_id.in_(message_ids)).order_by(Citation.message_id, Citation.ordinal)
    ).all()


def cite(session: Session, message_id: UUID, cited: Sequence[Cited]) -> None:
    """Keep what the answer cites, but for documents that were erased while it was written."""
    wanted = {citation.passage.document_id for citation in cited}
    kept = set(session.scalars(select(Document.id).where(Document.id.in_(wanted), Document.erased_at.is_(None))))
    session.add_all(
        Citation(
            message_id=message_id,
            ordinal=ordinal,
            number=citation.number,
            document_id=citation.passage.document_id,
            version_id=citation.passage.version_id,
            chunk_id=citation.passage.chunk_id,
            page=citation.page,
            boxes=citation.boxes,
            quote=citation.quote,
        )
        for ordinal, citation in enumerate(cited)
        if citation.passage.document_id in kept
    )
